"""Limits on the size and the time of request bodies."""

import asyncio
import time
from collections.abc import Callable

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAINED_BYTES = 64 * 1024 * 1024
"""Bytes of an oversized body that are read and dropped, so that the client can read the answer."""

BODY_TIMEOUT_SECONDS = 30.0
"""Longest wait for the next part of a body."""

SLOWEST_BYTES_PER_SECOND = 50_000
"""Lowest average rate of a body, so that a slow client cannot hold a place for days."""


FORM = (b"content-type", b"application/x-www-form-urlencoded")


class LimitedBodies:
    """Refuses bodies that are too large (by their declared length, or when they exceed it) or too slow.

    Args:
        limit: gives the largest body of a request, in bytes.
    """

    def __init__(self, app: ASGIApp, limit: Callable[[Scope], int]) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope)
        declared = _content_length(scope)
        read, whole = 0, False
        until = time.monotonic() + BODY_TIMEOUT_SECONDS + limit / SLOWEST_BYTES_PER_SECOND

        async def limited() -> Message:
            nonlocal read, whole
            if whole:
                # The next message is the client's disconnect, for which a streamed answer waits.
                return await receive()
            if declared > limit:
                # A client that sent `Expect: 100-continue` has not sent the body yet.
                if b"expect" not in dict(scope["headers"]):
                    await _drain(receive)
                raise _too_large(f"{declared:,} bytes, more", limit)
            try:
                async with asyncio.timeout(min(BODY_TIMEOUT_SECONDS, until - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the body did not arrive in time") from None
            whole = not message.get("more_body", False)
            read += len(message.get("body", b""))
            if read > limit:
                if message.get("more_body", False):
                    await _drain(receive)
                raise _too_large("more", limit)
            return message

        await self._app(scope, limited, send)


def _too_large(size: str, limit: int) -> HTTPException:
    return HTTPException(413, f"the body has {size} than the limit of {limit:,} bytes")


async def _drain(receive: Receive) -> None:
    dropped = 0
    while dropped < DRAINED_BYTES:
        message = await receive()
        dropped += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


def _content_length(scope: Scope) -> int:
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
