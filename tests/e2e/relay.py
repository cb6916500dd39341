"""A relay to a server that can be closed, so that the server is unreachable although it runs."""

import asyncio
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread

HOST = "127.0.0.1"

REQUEST = re.compile(rb"^([A-Z]+ [^ ?]+)[^ ]* HTTP/1\.1\r$", re.MULTILINE)
"""The first line of an HTTP request, without its query."""


@contextmanager
def relay(port: int, target: int) -> Iterator[list[str]]:
    """Forward connections at `port` to `target`, and close them at the end of the block; give the requests so far."""
    requests: list[str] = []
    started: Future[Callable[[], object]] = Future()

    async def serve() -> None:
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        server = await asyncio.start_server(
            lambda reader, writer: _pass_on(reader, writer, target, requests), HOST, port
        )
        started.set_result(lambda: loop.call_soon_threadsafe(ended.set))
        await ended.wait()
        server.close()

    # When it ends, `run` cancels open connections.
    thread = Thread(target=asyncio.run, args=[serve()])
    thread.start()
    end = started.result(timeout=10)
    try:
        yield requests
    finally:
        end()
        thread.join()


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int, requests: list[str]
) -> None:
    there_reader, there_writer = await asyncio.open_connection(HOST, target)
    try:
        await asyncio.gather(_copy(reader, there_writer, requests), _copy(there_reader, writer, []))
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
        there_writer.transport.abort()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, requests: list[str]) -> None:
    while part := await source.read(65_536):
        requests += [line.decode() for line in REQUEST.findall(part)]
        target.write(part)
        await target.drain()
    target.write_eof()
