"""The client of the data API: batches, the end of the data, errors and retries."""

import gzip
import json
import socket
import time
from collections.abc import AsyncIterator
from threading import Event
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from dosel.errors import SourceError, SourceUnavailable
from dosel.sources import data_api
from dosel.sources.base import Batch
from dosel.sources.data_api import DataApi
from tests.outside import HEAD, Talk, dripping, server, silent, unread

ROWS = [["2544", "39", "3"], ["2600", "40", "2"]]
BATCH: dict[str, Any] = {"group_number": 6, "batch_number": 2, "data": ROWS}
URL = "http://data.test/data"


class FakeDataApi:
    """A data API that sends the given responses in order, and then repeats the last one."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = answers
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def next_batch(self, coding: str = "uci") -> Batch | None:
        return DataApi("http://data.test/", 6, coding, 5, 3, unread(self)).next_batch()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of each wait between attempts; the tests do not really wait."""
    waited: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=waited.append))
    return waited


def ok(**changes: Any) -> httpx.Response:
    return httpx.Response(200, json=BATCH | changes)


def encoded(content: bytes, encoding: str) -> httpx.Response:
    return httpx.Response(200, stream=httpx.ByteStream(content), headers={"Content-Encoding": encoding})


def refusal(status: int, detail: Any) -> httpx.Response:
    return httpx.Response(status, json={"detail": detail})


def test_a_batch_is_named_by_group_epoch_and_number() -> None:
    outside = FakeDataApi(httpx.Response(200, json=BATCH, headers={"X-Epoch": "e7"}))
    assert outside.next_batch("course") == Batch(URL, "group 6", "e7", 2, ROWS, "course")
    assert [str(request.url) for request in outside.requests] == [f"{URL}?group_number=6"]


def test_a_source_without_an_epoch_gives_an_empty_epoch() -> None:
    batch = FakeDataApi(ok()).next_batch()
    assert batch is not None
    assert batch.epoch == ""


@pytest.mark.parametrize(
    "answer",
    [
        refusal(400, "Ya se recolectó toda la información minima necesaria"),
        refusal(400, "Ya se recolectó toda la información mínima necesaria"),
        refusal(400, "Ya se recolecto toda la informacion minima necesaria"),
        refusal(400, "YA SE RECOLECTÓ TODA LA INFORMACIÓN MÍNIMA NECESARIA"),
        # The same text with decomposed accents.
        refusal(400, "Ya se recolecto\u0301 toda la informacio\u0301n minima necesaria"),
        ok(data=[]),
        ok(data=[], batch_number=10),
    ],
    ids=[
        "the original",
        "with its accent",
        "without any",
        "shouted",
        "decomposed",
        "no rows",
        "no rows after the tenth",
    ],
)
def test_every_form_of_the_end_of_the_data_is_recognised(answer: httpx.Response, waits: list[float]) -> None:
    outside = FakeDataApi(answer)
    assert outside.next_batch() is None
    assert (len(outside.requests), waits) == (1, [])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refusal(400, "Número de grupo inválido"), "refused group 6: 400 .*grupo inválido"),
        (refusal(400, "no"), "refused group 6: 400"),
        (httpx.Response(400, json={}), "refused group 6: 400"),
        (refusal(422, [{"msg": "Input should be a valid integer"}]), "refused group 6: 422"),
        (refusal(404, "Ya se recolectó toda la información minima necesaria"), "refused group 6: 404"),
        (httpx.Response(302, json={}, headers={"Location": "http://other.test/"}), "refused group 6: 302"),
        (httpx.Response(200, json=[1]), "answered 200 with list"),
        (ok(data=None), "no list of rows"),
        (ok(data="rows"), "no list of rows"),
        (ok(data=[["1"], "2"]), "no list of rows"),
        (ok(group_number=5), "sent group 5; expected 6"),
        (ok(group_number="6"), "sent group '6'; expected 6"),
        (ok(batch_number=0), "batch_number 0; expected 1 to 2,147,483,647"),
        (ok(batch_number=-1), "batch_number -1; expected 1 to 2,147,483,647"),
        (ok(batch_number=True), "batch_number True; expected 1 to 2,147,483,647"),
        (ok(batch_number="2"), "batch_number '2'; expected 1 to 2,147,483,647"),
        (ok(batch_number=2.0), "batch_number 2.0; expected 1 to 2,147,483,647"),
        (ok(batch_number=2**31), "batch_number 2147483648; expected 1 to 2,147,483,647"),
        (ok(batch_number=10**60), "batch_number 1000000000000000000000000000000000000000; expected"),
        (ok(batch_number=None), "batch_number None; expected 1 to 2,147,483,647"),
    ],
)
def test_a_permanent_failure_is_not_retried(answer: httpx.Response, message: str, waits: list[float]) -> None:
    outside = FakeDataApi(answer)
    with pytest.raises(SourceError, match=message) as raised:
        outside.next_batch()
    assert not isinstance(raised.value, SourceUnavailable)
    assert URL in str(raised.value)
    assert (len(outside.requests), waits) == (1, [])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.Response(500, text="Internal Server Error"), "answered 500"),
        (httpx.Response(503, json=BATCH), "answered 503"),
        (httpx.Response(429, json={}), "answered 429"),
        (httpx.Response(200, html="<h1>It works!</h1>"), r"18 bytes \(text/html; charset=utf-8\) that are not JSON"),
        (httpx.Response(200, content=json.dumps(BATCH).encode()[:-3]), "not JSON"),
        (httpx.Response(200, content=b""), r"0 bytes \(no content type\) that are not JSON"),
        (httpx.ConnectError("nobody there"), r"cannot be reached \(ConnectError: nobody there\)"),
        (httpx.RemoteProtocolError("cut short"), "cannot be reached"),
        (httpx.DecodingError("no gzip"), "cannot be reached"),
    ],
)
def test_a_temporary_failure_is_retried_a_limited_number_of_times(
    answer: httpx.Response | Exception, message: str, waits: list[float]
) -> None:
    recovering = FakeDataApi(answer, ok())
    batch = recovering.next_batch()
    assert batch is not None
    assert batch.rows == ROWS
    waits.clear()
    broken = FakeDataApi(answer)
    with pytest.raises(SourceUnavailable, match=message) as raised:
        broken.next_batch()
    assert URL in str(raised.value)
    assert (len(broken.requests), len(waits)) == (data_api.ATTEMPTS, data_api.ATTEMPTS - 1)


def test_waits_between_attempts_double_with_jitter(waits: list[float]) -> None:
    with pytest.raises(SourceUnavailable):
        FakeDataApi(httpx.Response(500)).next_batch()
    assert [0.75 <= wait / base <= 1.25 for wait, base in zip(waits, (0.5, 1, 2), strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("asked", "waited"),
    [("7", 7.0), ("0", 0.0), ("-5", 0.0), ("86400", data_api.MAX_WAIT_SECONDS), ("inf", data_api.MAX_WAIT_SECONDS)],
)
def test_the_retry_after_header_sets_the_wait(asked: str, waited: float, waits: list[float]) -> None:
    busy = httpx.Response(503, headers={"Retry-After": asked})
    assert FakeDataApi(busy, ok()).next_batch() is not None
    assert waits == [waited]


@pytest.mark.parametrize("asked", ["Wed, 21 Oct 2026 07:28:00 GMT", "soon", "nan", ""])
def test_an_invalid_retry_after_gets_the_default_wait(asked: str, waits: list[float]) -> None:
    assert FakeDataApi(httpx.Response(503, headers={"Retry-After": asked}), ok()).next_batch() is not None
    assert 0 < waits[0] < 1


def test_reading_stops_at_the_size_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_api, "MAX_ANSWER_BYTES", 1000)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 100
            yield b"1" * 100

    outside = FakeDataApi(httpx.Response(200, content=endless()))
    with pytest.raises(SourceError, match="more than 1000 bytes"):
        outside.next_batch()
    assert (len(outside.requests), sent) == (1, 1100)


def test_the_size_limit_applies_to_the_decompressed_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_api, "MAX_ANSWER_BYTES", 1000)
    packed = encoded(gzip.compress(b" " * 2000), "gzip")
    with pytest.raises(SourceError, match="more than 1000 bytes"):
        FakeDataApi(packed).next_batch()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            httpx.Response(200, content=b"[" * 100_000),
            "100,000 lists and objects in 100,000 bytes, too many for rows of 3 columns",
        ),
        (httpx.Response(200, content=b'{"data": [[' + b"{}," * 100_000 + b"1]]}"), "too many for rows of 3 columns"),
        (httpx.Response(200, json=BATCH | {"data": [[]] * 50_000}), "too many for rows"),
        (httpx.Response(200, json=BATCH | {"data": [["1"] * 100_000]}), "commas in 3 lists and objects, too many"),
        (httpx.Response(200, json=BATCH | dict.fromkeys(map(str, range(1_000)), 1)), "commas in .* too many for rows"),
        (encoded(b"x", "gzip, gzip"), "in the encoding 'gzip, gzip'"),
        (encoded(b"x", "br"), "in the encoding 'br'"),
        (httpx.Response(302, json={}, headers={"Location": "http://elsewhere.test/"}), "refused group 6: 302"),
    ],
    ids=[
        "nested lists",
        "objects",
        "empty rows",
        "a wide row",
        "many keys",
        "nested gzip",
        "another encoding",
        "a redirect",
    ],
)
def test_a_response_that_needs_more_memory_than_its_bytes_is_refused_without_parsing(
    answer: httpx.Response, message: str
) -> None:
    outside = FakeDataApi(answer)
    with pytest.raises(SourceError, match=message):
        outside.next_batch()
    assert outside.requests[0].headers["accept-encoding"] == "identity"
    assert len(outside.requests) == 1


def test_a_compressed_response_is_read() -> None:
    batch = FakeDataApi(encoded(gzip.compress(json.dumps(BATCH).encode()), "gzip")).next_batch()
    assert batch is not None
    assert batch.rows == ROWS


@pytest.mark.parametrize(
    "talk",
    [dripping(HEAD, b" "), dripping(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"), silent],
    ids=["body drips", "headers drip", "silence"],
)
def test_the_deadline_applies_to_the_whole_response(talk: Talk) -> None:
    with server(talk) as (url, served):
        with pytest.raises(SourceUnavailable, match=r"did not finish its answer in 0\.2 s"):
            DataApi(url, 6, "uci", timeout=0.2, columns=3).next_batch()
        # A busy server accepts a connection after its client has given up.
        until = time.monotonic() + 10
        while len(served) < data_api.ATTEMPTS and time.monotonic() < until:
            Event().wait(0.01)
        assert len(served) == data_api.ATTEMPTS


def cut(peer: socket.socket, done: Event) -> None:
    peer.sendall(HEAD + json.dumps(BATCH).encode())


def test_a_connection_closed_within_the_body_gives_no_batch() -> None:
    with server(cut) as (url, served):
        with pytest.raises(SourceUnavailable, match="RemoteProtocolError"):
            DataApi(url, 6, "uci", timeout=5, columns=3).next_batch()
        assert len(served) == data_api.ATTEMPTS


def test_a_refused_connection_names_the_address() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(SourceUnavailable, match=f"{url}/data cannot be reached.*is it running"):
            DataApi(url, 6, "uci", timeout=5, columns=3).next_batch()
