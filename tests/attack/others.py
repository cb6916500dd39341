"""The other client, which sends a row a hundred times a second."""

import time
from http.client import HTTPConnection, HTTPException
from multiprocessing.connection import Connection

from tests.attack.bodies import JSON, ROW
from tests.attack.target import BYSTANDER, HOST

PER_SECOND = 100.0

Samples = list[tuple[float, float, str]]
"""For each request: its due time by `time.monotonic`, the milliseconds until its response, and its status."""


def go_on(port: int, pipe: Connection) -> None:
    """Send rows until a message arrives in the pipe, then send the samples back."""
    samples: Samples = []
    connection = _connection(port)
    due = time.monotonic()
    while not pipe.poll(max(0.0, due - time.monotonic())):
        began = time.monotonic()
        try:
            connection.request("POST", "/predict", ROW, JSON)
            response = connection.getresponse()
            response.read()
            status = str(response.status)
        except (OSError, HTTPException) as error:
            status = type(error).__name__
            connection.close()
            connection = _connection(port)
        samples.append((began, 1000 * (time.monotonic() - began), status))
        # Late requests are skipped: otherwise a slow request would be followed by a burst.
        due = max(due + 1 / PER_SECOND, time.monotonic())
    pipe.send(samples)


def _connection(port: int) -> HTTPConnection:
    return HTTPConnection(HOST, port, timeout=60, source_address=(BYSTANDER, 0))
