"""Limits on what a client sends: how much, for how long and how often at once. uvicorn's own protocol has none.

The timers of this protocol run only while a client keeps the server waiting, so that a request that arrives in one
piece costs none.
"""

import asyncio
import time
from collections import Counter
from http import HTTPStatus
from typing import Any

import msgspec
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.http.clients import network_of
from app.http.problems import MEDIA_TYPE, problem
from app.http.turns import Turns

MOST_HEAD_BYTES = 1 << 15
"""Most bytes of the request line and headers, and of the lines between parts of a chunked body."""

SLICE_BYTES = 1 << 13
"""Bytes of the request line and headers, or of a chunked body, that are parsed in one turn."""

MOST_HEADERS = 100

MOST_URL_BYTES = 1 << 12
"""Most bytes of path and query: thousands of parameters take tens of milliseconds to read."""

MOST_PIPELINED = 4
"""Most requests that a connection may send before the first one is answered."""

HEAD_SECONDS = 10.0
"""Time limit from the connection, or from the first byte of a later request, to the end of the headers."""

WINDOW_SECONDS = 15.0
WINDOW_BYTES = 150_000
"""Fewest bytes of an unfinished body that must arrive in each window."""

DRAIN_SECONDS = 15.0
DRAINED_BYTES = 64 * 1024 * 1024
"""Limits for dropping the rest of a body whose request is answered already, so that the client can read the answer."""

WRITE_SECONDS = 30.0
"""Longest wait for a client to read the next 48 kB of its answer."""

MOST_UNREAD_BYTES = 64_000_000
"""Most bytes of answers in memory that one client has not read; a further answer ends its connection."""

MOST_DELAYED_BYTES = 32_000_000
"""Most bytes that one client has sent and that wait for its turns; more of them end the connection that sent them."""

MOST_CONNECTIONS = 2_000
"""Most open connections; with more, the server closes the one whose next request it has waited for longest."""

MOST_OF_ONE_CLIENT = 512
"""Most open connections of one address: as many requests as may be in progress by default."""

TOO_SLOW = "dosel.too_slow"
"""Key of a scope whose body does not arrive; `app.http.body_limits` answers 408."""


class _Refused(Exception):
    """Ends the parsing of a request line and headers that are too large."""


class _Flow(FlowControl):
    """uvicorn's flow control; while what has arrived waits to be parsed, nothing more is read."""

    held = False

    def resume_reading(self) -> None:
        if self.held:
            self.read_paused = False
        else:
            super().resume_reading()


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol with limits."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pending = 0
        """Bytes that have arrived since the last complete part of a message."""
        self._arrived = 0
        """Bytes of the body in this window."""
        self._left = 0
        """Bytes that are left of a body of known length."""
        self._in_body = False
        self._refusal: tuple[int, str] | None = None
        """The status and the detail of the answer to a request line and headers that are refused."""
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        # One for all connections of this server.
        shared = vars(self.server_state)
        self._turns: Turns = shared.setdefault("dosel_turns", Turns())
        self._open: Counter[str] = shared.setdefault("dosel_open", Counter())
        self._unread_of: Counter[str] = shared.setdefault("dosel_unread", Counter())
        self._delayed_of: Counter[str] = shared.setdefault("dosel_delayed", Counter())
        self._unread = 0
        """Bytes of this connection's answer that the client has not read."""
        self._client = ""
        self._delayed = bytearray()
        """What has arrived and waits for this client's turn."""
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow: _Flow = _Flow(transport)
        self._client = network_of(self.client[0]) if self.client else ""
        self._open[self._client] += 1
        if self._open[self._client] > MOST_OF_ONE_CLIENT:
            if not self._make_room(self._client):
                self._refuse(503, f"this client has {MOST_OF_ONE_CLIENT} open connections, all with a request")
                return
        elif len(self.connections) > MOST_CONNECTIONS:
            self._make_room(None)
        self._start(HEAD_SECONDS)

    def _make_room(self, client: str | None) -> bool:
        """Close the connection, of this client if any, whose next request the server has waited for longest."""
        known = [c for c in self.connections if isinstance(c, BoundedHttp) and c is not self]
        # A connection that is closed in this turn is counted until the next one.
        waiting = [c for c in known if (c._timer or c.timeout_keep_alive_task) and not c.transport.is_closing()]
        if client is not None:
            waiting = [c for c in waiting if c._client == client]
        if not waiting:
            return False
        min(waiting, key=lambda c: c._since).transport.abort()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        self._drop_delayed(len(self._delayed))
        self._open[self._client] -= 1
        if not self._open[self._client]:
            del self._open[self._client]
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._delayed:
            if len(data) > self._slice():
                self._wait()
            elif self._turns.take(self._client, self._go_on):
                self._parse(data)
                return
        self._delayed += data
        self._delayed_of[self._client] += len(data)
        if self._delayed_of[self._client] > MOST_DELAYED_BYTES:
            self.transport.abort()
        # Small requests wait without a pause, which costs system calls.
        elif not self.flow.held and len(self._delayed) > SLICE_BYTES:
            self.flow.held = True
            self.transport.pause_reading()

    def _slice(self) -> int:
        """The bytes that are parsed in one turn: also the whole rest of a body of known length, which takes no time."""
        return max(SLICE_BYTES, self._left if self._in_body else 0)

    def _wait(self) -> None:
        """Go on with what has arrived in this client's next turn."""
        if self._turns.take(self._client, self._go_on):
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.transport.is_closing():
            self._drop_delayed(len(self._delayed))
            return
        size = self._slice()
        some = bytes(self._delayed[:size])
        self._drop_delayed(len(some))
        self._parse(some)
        if self._delayed:
            self._wait()
            return
        if self.flow.held:
            self.flow.held = False
            if not self.flow.read_paused and not self.transport.is_closing():
                self.transport.resume_reading()

    def _drop_delayed(self, size: int) -> None:
        del self._delayed[:size]
        self._delayed_of[self._client] -= size
        if not self._delayed_of[self._client]:
            del self._delayed_of[self._client]

    def _parse(self, data: bytes) -> None:
        self._pending += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            self._stop()
        elif self._pending > MOST_HEAD_BYTES:
            self._refuse(431, f"the request line and headers exceed {MOST_HEAD_BYTES:,} bytes")
        elif self._timer is None and (self._in_body or self.cycle is None or self.cycle.response_complete):
            self._start(WINDOW_SECONDS if self._in_body else HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        if self._pending > MOST_HEAD_BYTES and self._head_bytes() > MOST_HEAD_BYTES:
            self._refusal = 431, f"the request line and headers exceed {MOST_HEAD_BYTES:,} bytes"
        elif len(self.headers) > MOST_HEADERS:
            self._refusal = 431, f"the request has {len(self.headers):,} headers, more than {MOST_HEADERS}"
        elif len(self.pipeline) >= MOST_PIPELINED:
            self._refusal = 431, f"more than {MOST_PIPELINED} requests came before the first one's answer"
        elif len(self.url) > MOST_URL_BYTES:
            self._refusal = 414, f"path and query are longer than {MOST_URL_BYTES:,} bytes"
        if self._refusal:
            raise _Refused
        self._stop()
        # A number: the parser has refused any other Content-Length.
        self._left = max((int(value) for name, value in self.headers if name == b"content-length"), default=0)
        super().on_headers_complete()
        self._pending, self._arrived, self._in_body = 0, 0, True
        # A new list: otherwise the fields after a chunked body would be added to the headers of this request's scope.
        self.headers = []

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        self._arrived += len(body)
        self._left -= len(body)
        super().on_body(body)
        if self.cycle.response_complete and self._arrived > DRAINED_BYTES:
            self.transport.close()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._pending, self._in_body = 0, False
        self._stop()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._since = time.monotonic()
        if self._in_body and not self.transport.is_closing():
            self._arrived = 0
            self._start(DRAIN_SECONDS)

    def send_400_response(self, msg: str) -> None:
        if self._refusal:
            self._refuse(*self._refusal)
        else:
            self._refuse(400, "the request is not HTTP/1.1")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self._write_timer or self.loop.call_later(WRITE_SECONDS, self.transport.abort)
        self._note_unread(self.transport.get_write_buffer_size())
        if self._unread_of[self._client] > MOST_UNREAD_BYTES:
            self.transport.abort()

    def _note_unread(self, size: int) -> None:
        self._unread_of[self._client] += size - self._unread
        self._unread = size
        if not self._unread_of[self._client]:
            del self._unread_of[self._client]

    def resume_writing(self) -> None:
        super().resume_writing()
        self._note_unread(0)
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _start(self, seconds: float) -> None:
        self._stop()
        self._since = time.monotonic()
        self._timer = self.loop.call_later(seconds, self._tick)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        """Decide about a client that has kept the server waiting."""
        self._timer = None
        if self.transport.is_closing():
            return
        if not self._in_body:
            if self._pending:
                self._refuse(408, f"the request line and headers did not arrive within {HEAD_SECONDS:g} s")
            else:
                self.transport.close()
        elif self.cycle.response_complete:
            self.transport.close()
        elif self.flow.read_paused or self._arrived >= WINDOW_BYTES:
            # While reading is paused, it is not the client that is slow.
            since, self._arrived = self._since, 0
            self._start(WINDOW_SECONDS)
            self._since = since
        else:
            self.scope[TOO_SLOW] = True  # type: ignore[literal-required]
            self.cycle.message_event.set()

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse(self, status: int, detail: str) -> None:
        """Answer with a problem document and close the connection."""
        self._stop()
        content = msgspec.json.encode(problem(status, detail, ""))
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()
