"""HTTP requests to servers that are not trusted: a deadline for the whole exchange, and answers as they arrive.

httpx limits each wait only, follows no redirect by default, and inflates what arrives without a limit. A server that
sends a byte a second would keep its client forever, and a few kB of nested gzip inflate to gigabytes.
"""

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

_PLAIN = {"Accept-Encoding": "identity"}


@asynccontextmanager
async def answer(
    method: str,
    url: str,
    *,
    seconds: float | None,
    headers: Mapping[str, str] | None = None,
    auth: tuple[str, str] | None = None,
    verify: ssl.SSLContext | bool = True,
    transport: httpx.AsyncBaseTransport | None = None,
    **request: Any,
) -> AsyncIterator[httpx.Response]:
    """The answer to a request, whose content the caller reads with `aiter_raw`; redirects are not followed.

    Args:
        seconds: the limit of the whole block, from connecting to the last byte; None if the caller sets its own.
        transport: carries the request; tests replace it.
        request: other parameters of the request, as httpx names them.

    Raises:
        TimeoutError: the block took longer.
        httpx.RequestError: the server cannot be reached, or does not speak HTTP.
        httpx.InvalidURL: the address is none.
    """
    async with (
        asyncio.timeout(seconds),
        httpx.AsyncClient(
            timeout=seconds, auth=auth, verify=_default_tls() if verify is True else verify, transport=transport
        ) as client,
        client.stream(method, url, headers={**(headers or {}), **_PLAIN}, **request) as response,
    ):
        yield response


def finished(exchange: Coroutine[Any, Any, T]) -> T:
    """Run an exchange to its end; in a thread of its own where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(exchange)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, exchange).result()


def encoding(response: httpx.Response) -> str:
    """How the server encoded the content, although it was asked not to; "identity" if it did not."""
    return str(response.headers.get("content-encoding", "identity"))


@functools.cache
def _default_tls() -> ssl.SSLContext:
    # Once for all requests: reading the certificates takes longer than most of them.
    return httpx.create_ssl_context()
