"""A data API on a real socket that sends one valid batch and then misbehaves.

Every case ends in limited retries or one clear error; the first batch is stored, and the audit passes.
"""

import gzip
import json
import socket
import time
from collections.abc import Callable
from threading import Event
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from dosel.errors import SourceError, SourceUnavailable
from dosel.pipeline import Pipeline
from dosel.settings import Settings
from dosel.sources import data_api
from dosel.sources.data_api import DataApi
from dosel.usecases.covertype import COVERTYPE
from tests.outside import Talk, dripping, server, silent

Received = Callable[..., list[list[str]]]

TIMEOUT = 1.0
PATIENT = 20.0
"""Seconds for a whole answer where no case waits for the end of them: a busy machine must not lose a good batch."""

MB = 1_000_000
TRIES = data_api.ATTEMPTS


def body(rows: Any, number: int, **changes: Any) -> bytes:
    return json.dumps({"group_number": 6, "batch_number": number, "data": rows} | changes).encode()


def answer(content: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    declared = len(content) if length is None else length
    head = [f"HTTP/1.1 {status}", f"Content-Length: {declared}", "Connection: close", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + content


def sends(content: bytes) -> Talk:
    return lambda peer, done: peer.sendall(content)


def resets_connection(peer: socket.socket, done: Event) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


def floods(peer: socket.socket, done: Event) -> None:
    """Send a hundred megabytes that begin like a batch."""
    peer.sendall(answer(b'{"data": [', length=100 * MB))
    for _ in range(100):
        peer.sendall(b" " * MB)


GOOD = [[str(value) for value in COVERTYPE.example.values()] + ["3"]]
SECOND = body(GOOD, 2)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BEGUN = answer(b"", length=1000)

CASES: dict[str, tuple[Talk, type[SourceError], str, int]] = {
    "silence": (silent, SourceUnavailable, r"did not finish its answer in 1 s", TRIES),
    "a byte now and then": (dripping(BEGUN, b" "), SourceUnavailable, "did not finish its answer", TRIES),
    "a header without end": (
        dripping(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        SourceUnavailable,
        "did not finish its answer",
        TRIES,
    ),
    "hangs up": (resets_connection, SourceUnavailable, "cannot be reached", TRIES),
    "cut in the body": (sends(answer(SECOND[:-9], length=len(SECOND))), SourceUnavailable, "RemoteProtocol", TRIES),
    "cut in a chunk": (sends(CHUNKED + b"ff\r\n" + SECOND[:50]), SourceUnavailable, "RemoteProtocolError", TRIES),
    "no HTTP": (sends(b"220 mail.example ESMTP\r\n"), SourceUnavailable, "RemoteProtocolError", TRIES),
    "500": (sends(answer(b"Internal Server Error", "500 Oops")), SourceUnavailable, "answered 500", TRIES),
    "503, come again": (
        sends(answer(b"", "503 Busy", "Retry-After: 7")),
        SourceUnavailable,
        "answered 503",
        TRIES,
    ),
    "HTML": (sends(answer(b"<h1>It works!</h1>")), SourceUnavailable, "18 bytes .* not JSON", TRIES),
    "truncated JSON": (sends(answer(SECOND[:-9])), SourceUnavailable, "not JSON", TRIES),
    "no gzip": (sends(answer(SECOND, "200 OK", "Content-Encoding: gzip")), SourceUnavailable, "damaged gzip", TRIES),
    "another group": (sends(answer(body(GOOD, 2, group_number=5))), SourceError, "sent group 5; expected 6", 1),
    "no batch number": (sends(answer(body(GOOD, 0))), SourceError, "batch_number 0", 1),
    "no rows but text": (sends(answer(body("rows", 2))), SourceError, "no list of rows", 1),
    "a list": (sends(answer(b"[]")), SourceError, "answered 200 with list", 1),
    "404": (sends(answer(b"{}", "404 Not Found")), SourceError, "refused group 6: 404", 1),
    "elsewhere": (sends(answer(b"{}", "302 Found", "Location: http://127.0.0.1:1/")), SourceError, "302", 1),
    "100 MB": (floods, SourceError, "more than 64000000 bytes", 1),
    "100 MB, packed": (
        sends(answer(gzip.compress(b" " * 100 * MB), "200 OK", "Content-Encoding: gzip")),
        SourceError,
        "more than 64000000 bytes",
        1,
    ),
}

ENDLESS = ("silence", "a byte now and then", "a header without end")
"""Cases that only the timeout ends."""


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of each wait between attempts; the tests do not really wait."""
    waited: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=waited.append))
    return waited


@pytest.fixture
def pipeline(warehouse_url: str, tracking_uri: str) -> Pipeline:
    return Pipeline(COVERTYPE, Settings(tracking_uri=tracking_uri, warehouse_url=warehouse_url))


def after_a_good_batch(rows: list[list[str]], then: Talk) -> Talk:
    first = iter([answer(body(rows, 1))])

    def talk(peer: socket.socket, done: Event) -> None:
        good = next(first, None)
        if good is None:
            then(peer, done)
        else:
            peer.sendall(good)

    return talk


@pytest.mark.parametrize("case", CASES)
def test_a_misbehaving_source_ends_in_limited_retries_or_one_error(
    case: str, pipeline: Pipeline, received: Received, waits: list[float]
) -> None:
    talk, kind, message, tries = CASES[case]
    before = psutil.Process().memory_info().rss
    with server(after_a_good_batch(received(20), talk)) as (url, served):
        timeout = TIMEOUT if case in ENDLESS else PATIENT
        began = time.monotonic()
        with pytest.raises(SourceError, match=message) as raised:
            pipeline.ingest(DataApi(url, 6, "uci", timeout, 13))
        assert time.monotonic() - began < timeout * (tries + 1) + 10
        assert len(served) == 1 + tries
    assert type(raised.value) is kind
    assert f"{url}/data" in str(raised.value)
    assert len(waits) == tries - 1
    assert all(wait <= data_api.MAX_WAIT_SECONDS for wait in waits)
    assert case != "503, come again" or waits == [7.0] * (TRIES - 1)
    assert psutil.Process().memory_info().rss - before < 300 * MB
    assert [record.number for record in pipeline.batches.records()] == [1]
    pipeline.batches.audit()


def test_an_empty_batch_ends_the_ingest(pipeline: Pipeline, received: Received, waits: list[float]) -> None:
    with server(after_a_good_batch(received(20), sends(answer(body([], 2))))) as (url, served):
        assert [record.number for record in pipeline.ingest(DataApi(url, 6, "uci", PATIENT, 13))] == [1]
        assert (len(served), waits) == (2, [])


@pytest.mark.soak
@pytest.mark.parametrize("case", [case for case, (*_, tries) in CASES.items() if tries > 1 and case != "silence"])
def test_no_batch_is_missing_after_the_source_recovers(
    case: str, pipeline: Pipeline, received: Received, waits: list[float]
) -> None:
    """The source fails twice, then sends the missing batch and the end of the data."""
    bad = CASES[case][0]
    answers = iter([sends(answer(body(received(20), 1))), bad, bad, sends(answer(SECOND)), sends(answer(body([], 3)))])

    def talk(peer: socket.socket, done: Event) -> None:
        next(answers)(peer, done)

    with server(talk) as (url, served):
        stored = pipeline.ingest(DataApi(url, 6, "uci", 3.0 if case in ENDLESS else PATIENT, 13))
        assert [record.number for record in stored] == [1, 2]
        assert len(served) == 5
    assert len(pipeline.batches.clean()) == 21
