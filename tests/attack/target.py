"""The target and the outcome of attacks."""

import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

HOST = "127.0.0.1"
BYSTANDER = "127.0.0.2"
"""Address of the other client; the attacker has `HOST`."""


@dataclass(frozen=True)
class Target:
    """A running API.

    Attributes:
        port: of the API with the settings of `make up`.
        limited_port: of the same API with a limit of `LIMITED_RATE` requests per second.
        closed_port: of the same API with a closed use case.
        mlflow: processes of the MLflow server, which an attack may suspend and has to resume.
        environment: variables with which a process of this installation reaches its data store and MLflow.
    """

    port: int
    limited_port: int
    closed_port: int
    mlflow: tuple[int, ...]
    environment: dict[str, str]


LIMITED_RATE = 2

LEAST_SECONDS = 5.0
"""A shorter attack is repeated for so long: a 99 % quantile needs hundreds of the other client's requests."""


@dataclass
class Outcome:
    """The outcome of an attack. All fields are summed up, except for `failed`.

    Attributes:
        answers: number of answers by status; "closed" and "open" for connections without one.
        failed: the forbidden effect that the attack had; "" without one.
        rows_reconstructed: number of training rows that the answers revealed.
        foreign_models_served: answers by a version that neither the gate nor a key let in.
    """

    answers: Counter[str] = field(default_factory=Counter)
    failed: str = ""
    rows_reconstructed: int = 0
    foreign_models_served: int = 0

    def add(self, other: "Outcome") -> None:
        self.answers += other.answers
        self.failed = self.failed or other.failed
        self.rows_reconstructed += other.rows_reconstructed
        self.foreign_models_served += other.foreign_models_served


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        must_not: the forbidden effect, besides slow responses for others, memory growth and undeclared errors.
        run: performs the attack in its own process, in less than a minute.
    """

    name: str
    must_not: str
    run: Callable[[Target], Outcome]


def carry_out(attack: Attack, target: Target, pipe: Connection) -> None:
    """Run an attack in this process, again if it is short, and send its start and its outcome through the pipe."""
    # On the same machine, the attacker takes processor time from the API, which a remote attacker would not.
    os.nice(10)
    pipe.send(None)
    until = time.monotonic() + LEAST_SECONDS
    found = attack.run(target)
    while time.monotonic() < until and not found.failed:
        found.add(attack.run(target))
    pipe.send(found)


def ask(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    source: str = HOST,
    seconds: float = 60,
) -> tuple[str, bytes]:
    """The status and the body of an answer; the status is "closed" without one."""
    connection = HTTPConnection(HOST, port, timeout=seconds, source_address=(source, 0))
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return str(response.status), response.read()
    except (OSError, HTTPException):
        return "closed", b""
    finally:
        connection.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), timeout=30)


def status_of(connection: socket.socket, seconds: float) -> str:
    """The status that comes within some seconds; "closed" or "open" without one."""
    connection.settimeout(seconds)
    try:
        beginning = connection.recv(1 << 16)
    except TimeoutError:
        return "open"
    except OSError:
        return "closed"
    return beginning[9:12].decode("latin-1") or "closed"


def whole_answer(connection: socket.socket, seconds: float) -> str:
    """The status of an answer that is read to its end; "closed" without one."""
    connection.settimeout(seconds)
    try:
        response = HTTPResponse(connection)
        response.begin()
        response.read()
    except (OSError, HTTPException):
        return "closed"
    return str(response.status)


def together(calls: Iterable[Callable[[], Any]]) -> None:
    """Make calls at once, each in a thread."""
    threads = [Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
