"""Limits on the size of request bodies and on the number of requests in progress."""

import asyncio
import time
from collections.abc import Callable

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.clients import client_of
from app.http.problems import ALWAYS_ANSWERED, CLIENT_CLOSED, problem_response
from app.http.protocol import DRAINED_BYTES, TOO_SLOW
from app.serving.loaded_model import Overloaded
from app.serving.places import Places
from dosel.settings import Settings

DRAIN_SECONDS = 5.0
"""Seconds for which an oversized body is read and dropped, so that the client can read the answer."""

SMALLEST_LIMIT = 1024

RECEIVING_BYTES = 64_000_000
"""Memory for all bodies of requests in progress; bodies of bulk requests are on disk instead."""

UPLOAD_BYTES_PER_SECOND = 50_000
"""Slowest accepted upload of a bulk request: a slow one would keep a place from other clients.

Other requests take no place before their bodies have arrived; `app.http.protocol` bounds their time.
"""

UPLOAD_SLACK_SECONDS = 10.0
"""How far an upload may fall behind that rate. Faster bytes do not extend it."""

WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})

FORM = (b"content-type", b"application/x-www-form-urlencoded")


class RequestLimits:
    """Refuses bodies that are too large, and answers 503 at once while `DOSEL_QUEUE_DEPTH` requests are in progress.

    A request counts as in progress once its body has arrived, so that a client that sends no body cannot keep other
    clients out. A client may take at most half of the places that other clients leave free (16 of 32, then 8, then 4).

    Args:
        largest: the largest body of a request, in bytes, and whether its route writes the body to disk.
        on_shed: called for each request that is refused because no place is free.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        largest: Callable[[Scope], tuple[int, bool]],
        on_shed: Callable[[], None],
    ) -> None:
        self._app = app
        self.places = Places("the request queue", settings.queue_depth)
        self.receiving = Places("the memory for bodies", max(RECEIVING_BYTES, 2 * settings.max_body_bytes))
        self.largest = largest
        self.on_shed = on_shed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS_ANSWERED:
            await self._app(scope, receive, send)
            return
        request = _Request(self, scope, receive)
        try:
            if scope["method"] in WITHOUT_BODY or not _announces_body(scope):
                await request.enter()
            await self._app(scope, request.receive, send)
        except _Full as full:
            await problem_response(scope, 503, full.detail, full.headers)(scope, receive, send)
        finally:
            request.leave()


class _Full(HTTPException):
    """No place is free. If a route raises this while it reads the body, the route's error handler answers."""


class _Request:
    """One request's body and place."""

    __slots__ = (
        *("_client", "_held", "_inside", "_limits", "_most", "_on_disk", "_read", "_receive", "_scope", "_slack"),
        "_whole",
    )

    def __init__(self, limits: RequestLimits, scope: Scope, receive: Receive) -> None:
        self._limits = limits
        self._scope = scope
        self._receive = receive
        self._client = client_of(scope)
        self._inside = self._whole = False
        self._read = self._held = 0
        self._most, self._on_disk = limits.largest(scope)
        self._slack = UPLOAD_SLACK_SECONDS

    async def receive(self) -> Message:
        """The next part of the body.

        Raises:
            HTTPException: the body is too large or too slow, the client is gone, or no place is free.
        """
        if self._whole:
            # The next message is the client's disconnect, for which a streamed answer waits.
            return await self._receive()
        if not self._read and (b"expect", b"100-continue") in self._scope["headers"]:
            # A client that sent `Expect: 100-continue` sends no body before this server asks for it.
            self._check_declared()
        message = await (self._receive_upload() if self._on_disk else self._receive())
        size = len(message.get("body", b""))
        if message.get("more_body", False) or self._read or size > SMALLEST_LIMIT or message["type"] != "http.request":
            await self._check_part(message, size)
        if not message.get("more_body", False):
            self._whole = True
            await self.enter()
        return message

    async def enter(self) -> None:
        """Take the request's place.

        Raises:
            HTTPException: no place is free.
        """
        if self._inside:
            return
        try:
            self._limits.places.take(self._client)
        except Overloaded as full:
            self._limits.on_shed()
            raise _Full(503, str(full), {"Retry-After": "1"}) from None
        self._inside = True
        # Let all requests that have arrived be counted before the first is answered.
        await asyncio.sleep(0)

    def leave(self) -> None:
        """Give back what this request has taken."""
        if self._inside:
            self._limits.places.leave(self._client)
        if self._held:
            self._limits.receiving.leave(self._client, self._held)

    async def _receive_upload(self) -> Message:
        # Only waiting for the client counts, and not the time that the route spends between two parts.
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._slack):
                message = await self._receive()
        except TimeoutError:
            rate = f"{UPLOAD_BYTES_PER_SECOND:,} bytes/s by more than {UPLOAD_SLACK_SECONDS:g} s"
            raise HTTPException(408, f"the body did not arrive in time: it fell behind {rate}") from None
        gained = len(message.get("body", b"")) / UPLOAD_BYTES_PER_SECOND
        self._slack = min(UPLOAD_SLACK_SECONDS, self._slack - (time.monotonic() - began) + gained)
        return message

    async def _check_part(self, message: Message, size: int) -> None:
        if message["type"] != "http.request":
            raise HTTPException(CLIENT_CLOSED, "the client disconnected before its body had arrived")
        more = message.get("more_body", False)
        if not self._read and _declared(self._scope) > self._most:
            if more:
                await _drain(self._receive)
            self._check_declared()
        self._read += size
        if self._read > self._most:
            if more:
                await _drain(self._receive)
            raise _too_large("more", self._most)
        if more and self._scope.get(TOO_SLOW):
            raise HTTPException(408, "the body did not arrive in time")
        if not self._on_disk:
            self._hold(size)

    def _hold(self, size: int) -> None:
        try:
            self._limits.receiving.take(self._client, size)
        except Overloaded as full:
            raise HTTPException(503, str(full), {"Retry-After": "1"}) from None
        self._held += size

    def _check_declared(self) -> None:
        declared = _declared(self._scope)
        if declared > self._most:
            raise _too_large(f"{declared:,} bytes, more", self._most)


def _too_large(size: str, limit: int) -> HTTPException:
    return HTTPException(413, f"the body has {size} than the limit of {limit:,} bytes")


async def _drain(receive: Receive) -> None:
    dropped = 0
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while dropped < DRAINED_BYTES:
                message = await receive()
                dropped += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _announces_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") and value != b"0" for name, value in scope["headers"])


def _declared(scope: Scope) -> int:
    """The body's length by the header; 0 without one."""
    declared = 0
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            declared = max(declared, int(value))
    return declared


class FormsAsJson:
    """Reads a body declared as a form as JSON: no call takes forms, and `curl -d` declares one by default."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and FORM in scope["headers"]:
            scope["headers"] = [(b"content-type", b"application/json") if h == FORM else h for h in scope["headers"]]
        await self._app(scope, receive, send)
