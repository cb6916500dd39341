"""How much of a request is read."""

import asyncio
import time
from collections.abc import Callable, Iterator

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAINED_BYTES = 64 * 1024 * 1024
"""How much of a body that is too large is still taken in and dropped, so that the client gets to read why."""

BODY_TIMEOUT_SECONDS = 30.0
"""How long nothing of a body may come."""

SLOWEST_BYTES_PER_SECOND = 50_000
"""Slower than this on the whole, and a body is not waited for: one that drips would hold a place for days."""


class LimitedBodies:
    """Refuses a body that is too large, by what it says of itself or as soon as it has grown so, or that never comes.

    Args:
        limit: bytes that are read of a request's body at most.
    """

    def __init__(self, app: ASGIApp, limit: Callable[[Scope], int]) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope)
        declared = max(_content_lengths(scope), default=0)
        read, whole = 0, False
        until = time.monotonic() + BODY_TIMEOUT_SECONDS + limit / SLOWEST_BYTES_PER_SECOND

        async def limited() -> Message:
            nonlocal read, whole
            if whole:
                # What comes now is the client's going away, for which a long answer listens.
                return await receive()
            if declared > limit:
                # A client that asked whether to go on sending is told no by the answer alone.
                if b"expect" not in dict(scope["headers"]):
                    await _drain(receive)
                raise _too_large(f"{declared:,} bytes, more", limit)
            try:
                async with asyncio.timeout(min(BODY_TIMEOUT_SECONDS, until - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the body did not come, or too slowly to wait for the rest of it") from None
            whole = not message.get("more_body", False)
            read += len(message.get("body", b""))
            if read > limit:
                if message.get("more_body", False):
                    await _drain(receive)
                raise _too_large("more", limit)
            return message

        await self._app(scope, limited, send)


def _too_large(size: str, limit: int) -> HTTPException:
    return HTTPException(413, f"the body has {size} than the {limit:,} bytes that are read at most")


async def _drain(receive: Receive) -> None:
    dropped = 0
    while dropped < DRAINED_BYTES:
        message = await receive()
        dropped += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


def _content_lengths(scope: Scope) -> Iterator[int]:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            yield int(value)


class JsonUnlessToldOtherwise:
    """Reads what says it is a form as JSON: no call takes forms, and that is what `curl -d` says by default."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            form = (b"content-type", b"application/x-www-form-urlencoded")
            scope["headers"] = [(b"content-type", b"application/json") if h == form else h for h in scope["headers"]]
        await self._app(scope, receive, send)
