"""Limits for one client, in bytes, seconds and places, that protect the other clients."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import pytest
import uvicorn
from fastapi import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from app.http import body_limits, protocol
from app.http.body_limits import RequestLimits
from app.http.clients import BehindProxies, client_of
from app.http.turns import AT_ONCE, Turns
from app.serving.loaded_model import Overloaded
from app.serving.places import Places
from app.serving.work_queue import Pauses, SharedCalls, TooLate, WorkQueue
from dosel.errors import SettingsError
from dosel.settings import Settings
from tests.contract.test_api import wait_until

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
MOST_BODY = 100_000


# Bytes and seconds of a connection.


async def lengths(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that answers with the length of the body and the names of the headers."""
    request = Request(scope, receive)
    try:
        body = await request.body()
    except HTTPException as error:
        await PlainTextResponse(str(error.detail), error.status_code)(scope, receive, send)
        return
    await PlainTextResponse(json.dumps([len(body), sorted(request.headers)]))(scope, receive, send)


@contextmanager
def listening(app: Any = lengths, on_disk: bool = False) -> Iterator[tuple[str, int]]:
    """The address of a server with the API's protocol class and limits."""
    limited = RequestLimits(app, Settings(), lambda _: (MOST_BODY, on_disk), lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(limited, http=protocol.BoundedHttp, ws="none", log_level="critical"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        wait_until(lambda: server.started)
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            thread.join()


def received(connection: socket.socket) -> bytes:
    """Everything received until the server closes the connection."""
    found = b""
    connection.settimeout(10)
    try:
        while part := connection.recv(1 << 16):
            found += part
    except ConnectionResetError:
        pass
    return found


def answer_to(address: tuple[str, int], *parts: bytes) -> bytes:
    with socket.create_connection(address) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except ConnectionError:
            pass
        return received(connection)


@pytest.mark.parametrize(
    "head",
    [
        GET + b"X: " + b"x" * 200_000,
        GET + b"X:\r\n" * 50_000,
        GET + b"X:\r\n" * 101 + b"\r\n",
        GET + b"X: " + b"x" * 40_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n",
        b"\r\n" * 20_000,
        GET + b"\r\n" + GET + b"X:\r\n" * 101 + b"\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + b"X: " + b"x" * 200_000,
        POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 200_000,
    ],
    ids=["value", "fields", "101", "whole", "path", "blank", "second", "trailer", "extension"],
)
def test_an_endless_head_gets_431_and_is_closed(head: bytes) -> None:
    with listening() as address:
        statuses = [part[:3] for part in answer_to(address, head).split(b"HTTP/1.1 ")[1:]]
        assert statuses[-1] == b"431"


def test_a_hundred_header_fields_of_32_kb_in_total_are_accepted() -> None:
    with listening() as address:
        head = GET + b"".join(b"X-%d: %b\r\n" % (i, b"x" * 300) for i in range(97))
        assert answer_to(address, head + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_a_long_query_is_refused_unread() -> None:
    with listening() as address:
        assert b" 414 " in answer_to(address, b"GET /?" + b"a=1&" * 2_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in answer_to(address, b"GET /?" + b"a=1&" * 900 + b" HTTP/1.1\r\nConnection: close\r\n\r\n")


def test_too_many_pipelined_requests_are_refused() -> None:
    with listening() as address:
        assert b"HTTP/1.1 431" in answer_to(address, (GET + b"\r\n") * 2_000)


def test_trailer_fields_do_not_become_headers() -> None:
    with listening() as address:
        body = b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\nX-API-Key: y\r\n\r\n"
        found = json.loads(answer_to(address, POST + body).rpartition(b"\r\n\r\n")[2])
        assert found == [1, ["connection", "host", "transfer-encoding"]]


@pytest.mark.parametrize(
    ("begun", "status"),
    [
        (b"", b""),
        (GET, b"408"),
        (POST + b"Content-Length: 9\r\n\r\n12", b"408"),
    ],
    ids=["nothing", "head", "body"],
)
def test_a_head_or_body_that_does_not_arrive_in_time_is_closed(
    begun: bytes, status: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HEAD_SECONDS", "WINDOW_SECONDS", "DRAIN_SECONDS"):
        monkeypatch.setattr(protocol, name, 0.1)
    with listening() as address:
        answers = answer_to(address, begun).split(b"HTTP/1.1 ")
        assert answers[-1][:3] == status


@pytest.mark.parametrize("begun", [GET, b"\r\n"])
def test_the_time_limit_also_applies_to_a_second_head(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)
    with listening() as address, socket.create_connection(address) as connection:
        connection.sendall(GET + b"\r\n")
        assert b"200" in connection.recv(1000)
        connection.sendall(begun)
        assert b"HTTP/1.1 408" in received(connection)


def test_a_body_below_the_minimum_rate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "WINDOW_SECONDS", 0.2)
    with listening() as address, socket.create_connection(address) as connection:
        connection.sendall(POST + b"Content-Length: 90000\r\n\r\n")
        connection.settimeout(0.01)
        found = b""
        for _ in range(500):
            connection.send(b" ")
            try:
                found = connection.recv(1000)
                break
            except TimeoutError:
                pass
        assert found.startswith(b"HTTP/1.1 408")


def test_a_body_above_the_minimum_rate_is_accepted_for_several_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "WINDOW_SECONDS", 0.2)
    monkeypatch.setattr(protocol, "WINDOW_BYTES", 1_000)
    pause = threading.Event()
    with listening() as address, socket.create_connection(address) as connection:
        connection.sendall(POST + b"Connection: close\r\nContent-Length: 90000\r\n\r\n")
        for _ in range(15):
            connection.sendall(b" " * 6_000)
            pause.wait(0.05)
        assert received(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("part", [b"", b" ", b" " * 1_600], ids=["stalled", "dripping", "too slow"])
def test_an_upload_below_the_minimum_rate_is_refused_once_it_is_too_far_behind(
    part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 11 kB/s against 50 kB/s, a hundred times as fast.
    monkeypatch.setattr(body_limits, "UPLOAD_BYTES_PER_SECOND", 500_000)
    monkeypatch.setattr(body_limits, "UPLOAD_SLACK_SECONDS", 0.1)
    pause = threading.Event()
    with listening(on_disk=True) as address, socket.create_connection(address) as connection:
        connection.sendall(POST + b"Connection: close\r\nContent-Length: 90000\r\n\r\n")
        connection.setblocking(False)
        found = b""
        for _ in range(200):
            try:
                found = connection.recv(1_000)
                break
            except BlockingIOError:
                connection.send(part)
                pause.wait(0.015)
        assert found.startswith(b"HTTP/1.1 408")
        assert b"fell behind" in found


def test_a_fast_begin_does_not_let_an_upload_stall_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "UPLOAD_BYTES_PER_SECOND", 100)
    monkeypatch.setattr(body_limits, "UPLOAD_SLACK_SECONDS", 0.1)
    monkeypatch.setattr(protocol, "DRAIN_SECONDS", 0.1)
    with listening(on_disk=True) as address:
        # By its mean rate, this upload could stall for 800 s.
        answer = answer_to(address, POST + b"Content-Length: 90000\r\n\r\n" + b" " * 80_000)
        assert answer.startswith(b"HTTP/1.1 408")


def test_an_upload_above_the_minimum_rate_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "UPLOAD_BYTES_PER_SECOND", 1_000)
    monkeypatch.setattr(body_limits, "UPLOAD_SLACK_SECONDS", 0.3)
    pause = threading.Event()
    with listening(on_disk=True) as address, socket.create_connection(address) as connection:
        connection.sendall(POST + b"Connection: close\r\nContent-Length: 90000\r\n\r\n")
        for _ in range(15):
            connection.sendall(b" " * 6_000)
            pause.wait(0.05)
        assert received(connection).startswith(b"HTTP/1.1 200")


def test_time_in_which_the_server_does_not_read_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "UPLOAD_SLACK_SECONDS", 0.1)

    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            await asyncio.sleep(0.3)
        await PlainTextResponse("read")(scope, receive, send)

    limited = RequestLimits(busy, Settings(), lambda _: (MOST_BODY, True), lambda: None)
    assert asked(limited, [[b" " * 10] * 3], str) == [200]


def test_a_response_that_the_client_does_not_read_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "WRITE_SECONDS", 0.1)
    ended = threading.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await asyncio.wait_for(receive(), 10))["type"] != "http.disconnect":
            for _ in range(200):
                await send({"type": "http.response.body", "body": b" " * 100_000, "more_body": True})
        ended.set()

    with listening(endless) as address, socket.create_connection(address) as connection:
        connection.sendall(GET.replace(b"/healthz", b"/") + b"\r\n")
        assert ended.wait(10)


def test_one_client_has_a_limit_of_unread_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response in one piece waits in memory until the client has read it."""
    monkeypatch.setattr(protocol, "MOST_UNREAD_BYTES", 25_000_000)

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"20000000")]})
        await send({"type": "http.response.body", "body": b" " * 20_000_000})

    def size(connection: socket.socket) -> int:
        total = 0
        with suppress(OSError):
            while part := connection.recv(1 << 20):
                total += len(part)
        return total

    request = GET.replace(b"/healthz", b"/") + b"Connection: close\r\n\r\n"
    with listening(large) as address, ExitStack() as opened:
        for round_number in range(2):
            first, second = (opened.enter_context(socket.create_connection(address)) for _ in range(2))
            first.sendall(request)
            assert first.recv(1)
            second.sendall(request)
            # The second one is closed; what is read makes room for another round.
            assert size(second) < 20_000_000, round_number
            assert size(first) > 20_000_000, round_number


def test_a_request_without_a_body_takes_a_place() -> None:
    """Whatever its method: a route that reads no body would not take it."""

    async def unread(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("")(scope, receive, send)

    limited = RequestLimits(unread, Settings(queue_depth=1), lambda _: (MOST_BODY, False), lambda: None)
    limited.places.take("another client")
    assert asked(limited, [[b""]], str) == [200]
    assert asked(limited, [[b""]], str, (b"content-length", b"0")) == [503]


@pytest.mark.parametrize("answered", [False, True])
def test_beyond_the_connection_limit_the_longest_waiting_connection_is_closed(
    answered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MOST_CONNECTIONS", 2)
    with listening() as address:
        idle = []
        for _ in range(3):
            idle.append(socket.create_connection(address))
            if answered and len(idle) < 3:
                idle[-1].sendall(GET + b"\r\n")
                while not idle[-1].recv(10_000).endswith(b"]]"):
                    pass
        assert received(idle[0]) == b""
        for connection in idle[1:]:
            connection.sendall(GET + b"Connection: close\r\n\r\n")
            assert received(connection).startswith(b"HTTP/1.1 200")
        for connection in idle:
            connection.close()


@pytest.mark.parametrize("declared", [True, False])
def test_the_sender_of_a_too_large_body_can_read_the_413(declared: bool) -> None:
    size = 5_000_000
    kind = b"Content-Length: %d" % size if declared else b"Transfer-Encoding: chunked"
    body = b" " * size if declared else b"%x\r\n%b\r\n0\r\n\r\n" % (size, b" " * size)
    with listening() as address:
        answer = answer_to(address, POST + b"Connection: close\r\n" + kind + b"\r\n\r\n", body)
        assert answer.startswith(b"HTTP/1.1 413")


# Places.


def test_one_client_gets_at_most_half_of_the_places() -> None:
    places = Places("the queue", 4)
    places.take("one")
    places.take("one")
    with pytest.raises(Overloaded, match=r"no more room for one client \(2 of 4\)"):
        places.take("one")
    places.take("other")
    places.take("third")
    with pytest.raises(Overloaded, match="is full"):
        places.take("fourth")
    places.leave("one")
    places.take("fourth")


def test_clients_that_take_all_they_can_leave_places_for_others() -> None:
    places = Places("the upload queue", 32)
    for client, most in (("one", 16), ("two", 8), ("three", 4), ("four", 2), ("five", 1)):
        places.take(client, most)
        with pytest.raises(Overloaded):
            places.take(client)
    places.take("six")
    with pytest.raises(Overloaded, match="is full"):
        places.take("seven")


CHUNKED = (b"transfer-encoding", b"chunked")


def asked(
    middleware: Any, bodies: list[list[bytes] | None], clients: Callable[[int], str], *headers: tuple[bytes, bytes]
) -> list[int]:
    """The statuses of concurrent requests, each from one client and with the parts of its body."""
    statuses: list[int] = []

    async def one(number: int, parts: list[bytes] | None) -> None:
        left = list(parts or [])

        async def receive() -> dict[str, Any]:
            if parts is None:
                await asyncio.Event().wait()
            if not left:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {
            "type": "http",
            "path": "/predict",
            "method": "POST",
            "headers": list(headers or [CHUNKED]),
            "query_string": b"",
            "client": (clients(number), 1),
        }
        await middleware(scope, receive, send)

    async def concurrently() -> None:
        waiting = [asyncio.create_task(one(number, parts)) for number, parts in enumerate(bodies)]
        await asyncio.wait([task for task, parts in zip(waiting, bodies, strict=True) if parts is not None])
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(concurrently())
    return statuses


def limits(depth: int, shed: Callable[[], None] = lambda: None) -> RequestLimits:
    return RequestLimits(lengths, Settings(queue_depth=depth), lambda _: (MOST_BODY, False), shed)


def test_requests_beyond_the_queue_depth_get_503_at_once() -> None:
    shed: list[None] = []
    statuses = asked(limits(4, lambda: shed.append(None)), [[b"{}"]] * 10, str)
    assert sorted(statuses) == [200] * 4 + [503] * 6
    assert len(shed) == 6


def test_one_client_gets_at_most_half_of_the_request_queue() -> None:
    statuses = asked(limits(4), [[b"{}"]] * 10, lambda number: "one" if number < 8 else str(number))
    assert sorted(statuses) == [200] * 4 + [503] * 6


def test_requests_take_no_place_before_their_body_arrives() -> None:
    assert asked(limits(4), [*[None] * 100, [b"{}"]], lambda _: "one") == [200]


def test_bodies_of_one_client_fill_at_most_half_of_the_memory_for_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "RECEIVING_BYTES", 0)
    settings = Settings(max_body_bytes=50_000)
    limited = RequestLimits(lengths, settings, lambda _: (MOST_BODY, False), lambda: None)
    assert asked(limited, [[b" " * 30_000] * 2], str) == [503]
    assert asked(limited, [[b" " * 20_000] * 2], str) == [200]


def test_a_request_of_a_disconnected_client_gets_499() -> None:
    async def gone(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(HTTPException) as raised:
            await receive()
        await send({"type": "http.response.start", "status": raised.value.status_code, "headers": []})

    assert asked(RequestLimits(gone, Settings(), lambda _: (1, False), lambda: None), [[]], str) == [499]


# Turns.


def test_a_client_with_many_requests_lets_others_begin_in_the_same_turn() -> None:
    """The steps of each client are taken in the order in which they came, and none is forgotten."""
    taken: list[tuple[str, int]] = []

    async def together() -> None:
        turns = Turns()
        for client, number in [*(("one", n) for n in range(5 * AT_ONCE)), ("other", 0)]:
            step = partial(taken.append, (client, number))
            if turns.take(client, step):
                step()
        while len(taken) <= 5 * AT_ONCE:
            await asyncio.sleep(0)

    asyncio.run(together())
    assert taken.index(("other", 0)) == AT_ONCE
    assert [number for client, number in taken if client == "one"] == list(range(5 * AT_ONCE))


def test_a_step_that_fails_ends_no_turn_of_others() -> None:
    taken: list[int] = []

    def fail() -> None:
        raise ValueError

    async def together() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        turns = Turns()
        for number in range(3 * AT_ONCE):
            turns.take("one", partial(taken.append, number) if number != AT_ONCE else fail)
        while len(taken) < 2 * AT_ONCE - 1:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(together(), 5))
    assert taken == list(range(AT_ONCE + 1, 3 * AT_ONCE))


def test_one_client_has_a_limit_of_bytes_that_wait_to_be_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MOST_DELAYED_BYTES", 1_000_000)
    chunks = b"1\r\nx\r\n" * 40_000
    with listening() as address, ExitStack() as opened:
        connections = [opened.enter_context(socket.create_connection(address)) for _ in range(30)]
        for connection in connections:
            with suppress(ConnectionError):
                connection.sendall(POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunks)
        ended = 0
        for connection in connections:
            try:
                connection.sendall(b"0\r\n\r\n")
                ended += not received(connection)
            except ConnectionError:
                ended += 1
        assert 0 < ended < len(connections)
        assert b" 200 " in answer_to(address, GET + b"Connection: close\r\n\r\n")


def test_a_body_in_tiny_chunks_is_parsed_over_many_turns() -> None:
    """Each chunk costs a call, so that those of one reading take tens of milliseconds."""
    body = b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n"
    with listening() as address:
        answer = answer_to(address, POST + b"Transfer-Encoding: chunked\r\n\r\n" + body + GET + b"\r\n")
    assert b"[40000," in answer
    assert b"[0," in answer


def test_what_waits_to_be_parsed_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app reads the body of a chunked upload, which must not let the server read faster than it parses."""
    waiting: list[int] = []
    go_on = protocol.BoundedHttp._go_on

    def noted(self: protocol.BoundedHttp) -> None:
        waiting.append(len(self._delayed))
        go_on(self)

    monkeypatch.setattr(protocol.BoundedHttp, "_go_on", noted)
    monkeypatch.setattr(f"{__name__}.MOST_BODY", 1 << 24)

    async def count(scope: Scope, receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            for _ in range(12):
                # Meanwhile more is parsed than the server holds for an app before it stops reading.
                await asyncio.sleep(0)
            message = await receive()
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        await PlainTextResponse(f"{size} bytes")(scope, receive, send)

    piece = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    with listening(count, on_disk=True) as address, socket.create_connection(address) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        connection.sendall(piece * 200 + b"0\r\n\r\n")
        assert received(connection).endswith(b"13107200 bytes")
    assert max(waiting) <= 1 << 19


def test_requests_that_wait_for_their_turn_are_all_answered() -> None:
    """Their parts come in order, also those that arrive while others wait."""

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        # While this thread sleeps, all other requests arrive.
        time.sleep(0.2 if scope["path"] == "/first" else 0)
        await lengths(scope, receive, send)

    with listening(slow) as address, ExitStack() as opened:
        first = opened.enter_context(socket.create_connection(address))
        first.sendall(GET.replace(b"/healthz", b"/first") + b"\r\n")
        others = [opened.enter_context(socket.create_connection(address)) for _ in range(4 * AT_ONCE)]
        for connection in others:
            connection.sendall(POST + b"Content-Length: 3000\r\n\r\n" + b" " * 1_000)
        for connection in others:
            connection.sendall(b" " * 2_000)
        for connection in others:
            answer = b""
            while not answer.endswith(b"]]"):
                answer += connection.recv(1_000) or pytest.fail("the connection was closed")
            assert b"[3000," in answer


# Threads.


def test_work_past_its_deadline_raises_and_keeps_its_place_until_done() -> None:
    async def late() -> None:
        released, queue = threading.Event(), WorkQueue("sums", 1, 1, 0.5)
        with pytest.raises(TooLate, match=r"sums take longer than 0\.5 s"):
            await queue.run("one", released.wait)
        with pytest.raises(Overloaded, match="no more room for one client"):
            queue.check("one")
        released.set()
        assert await queue.run("other", lambda: 7) == 7
        queue.check("one")

    asyncio.run(late())


def test_a_queue_goes_on_after_a_thread_could_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of memory or of processes, for a moment."""

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def many() -> None:
        queue = WorkQueue("sums", 1, 1)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refused)
            for _ in range(3):
                with pytest.raises(Overloaded, match=r"sums cannot be worked on now \(can't start new thread\)"):
                    await queue.run("one", lambda: 7)
        assert await queue.run("one", lambda: 7) == 7

    asyncio.run(many())


def test_clients_take_turns() -> None:
    released, order = threading.Event(), list[str]()

    def work(name: str) -> None:
        released.wait()
        order.append(name)

    async def many() -> None:
        queue = WorkQueue("sums", 1, 31)
        names = ["a1", "a2", "a3", "b1", "a4", "b2", "c1"]
        asked = [asyncio.create_task(queue.run(name[0], partial(work, name))) for name in names]
        await asyncio.sleep(0)
        released.set()
        await asyncio.gather(*asked)

    asyncio.run(many())
    assert order == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


@pytest.mark.parametrize(("rows_come", "at_once"), [(True, 1), (False, 3)])
def test_spare_threads_work_only_while_no_single_rows_are_answered(rows_come: bool, at_once: int) -> None:
    released, began = threading.Event(), list[int]()

    def work(number: int) -> None:
        began.append(number)
        released.wait()

    async def many() -> None:
        rows = Pauses(1.0)
        if rows_come:
            rows.row_came()
        queue = WorkQueue("sums", 1, 31, spare=2, rows=rows)
        asked = [asyncio.create_task(queue.run("one", partial(work, number))) for number in range(5)]
        async with asyncio.timeout(10):
            while len(began) < at_once:
                await asyncio.sleep(0.01)
        # Those that wait have no thread, whatever time passes.
        assert queue._running == at_once
        released.set()
        await asyncio.gather(*asked)

    asyncio.run(many())
    assert sorted(began) == list(range(5))


def test_callers_share_a_waiting_call_but_not_a_running_one() -> None:
    calls: list[int] = []
    began, released = threading.Event(), threading.Event()

    def call() -> int:
        calls.append(len(calls))
        began.set()
        released.wait()
        return calls[-1]

    async def many() -> list[int]:
        looks = SharedCalls("looks", 10)
        first = asyncio.create_task(looks.run("a", call))
        await asyncio.to_thread(began.wait)
        others = [asyncio.create_task(looks.run("a", call)) for _ in range(45)]
        await asyncio.sleep(0)
        released.set()
        return await asyncio.gather(first, *others)

    assert asyncio.run(many()) == [0, *[1] * 45]


@pytest.mark.parametrize(("row_at", "pause"), [(10.0, 0.3), (8.5, None)], ids=["rows are answered", "no row came"])
def test_readers_pause_while_rows_are_answered(
    monkeypatch: pytest.MonkeyPatch, row_at: float, pause: float | None
) -> None:
    """A share of a quarter: after 0.1 s of work, 0.3 s without."""
    clock, slept = [row_at], list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", slept.append)
    pauses = Pauses(0.25)
    pauses.row_came()
    clock[0] = 10.0

    def work() -> str:
        clock[0] += 0.1
        raise ValueError("no such row")

    with pytest.raises(ValueError, match="no such row"):
        pauses.before(work)
    assert pauses.before(lambda: "second") == "second"
    assert [seconds for seconds in slept if seconds] == ([pytest.approx(pause)] if pause else [])


def test_a_shared_call_has_a_deadline() -> None:
    released = threading.Event()

    async def late() -> None:
        with pytest.raises(TooLate):
            await SharedCalls("looks", 0.05).run("a", released.wait)

    asyncio.run(late())
    released.set()


# Addresses.


@pytest.mark.parametrize(
    ("trusted", "sent", "seen"),
    [
        ("", ["1.1.1.1"], "10.0.0.9"),
        ("10.0.0.8", ["1.1.1.1"], "10.0.0.9"),
        ("10.0.0.0/8", ["1.1.1.1"], "1.1.1.1"),
        ("10.0.0.0/8", ["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
        ("10.0.0.0/8", ["6.6.6.6", "1.1.1.1, 10.0.0.7"], "1.1.1.1"),
        ("10.0.0.0/8, 1.1.1.1", ["2001:db8::1, 1.1.1.1"], "2001:db8::/64"),
        ("10.0.0.0/8", ["nonsense"], "10.0.0.9"),
        ("10.0.0.0/8", [], "10.0.0.9"),
    ],
)
def test_only_addresses_appended_by_trusted_proxies_are_used(trusted: str, sent: list[str], seen: str) -> None:
    found = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        found.append(client_of(scope))

    headers = [(b"x-forwarded-for", value.encode()) for value in sent]
    scope = {"type": "http", "client": ("10.0.0.9", 5), "headers": headers}
    middleware: Any = BehindProxies(app, Settings(trusted_proxies=trusted).proxy_networks)
    asyncio.run(middleware(scope, None, None))
    assert found == [seen]


def test_trusted_proxies_that_are_no_addresses_are_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="DOSEL_TRUSTED_PROXIES"):
        _ = Settings(trusted_proxies="proxy.example").proxy_networks
