"""Stand-ins for an outside HTTP server: one on a real socket that can misbehave, and one in the process."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import httpx

Talk = Callable[[socket.socket, Event], None]


@contextmanager
def server(talk: Talk) -> Iterator[tuple[str, list[int]]]:
    """Run a server that answers each request with `talk`; yield its address and a list with an item per request."""
    done, served = Event(), list[int]()

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                served.append(len(served))
                peer.recv(65536)
                try:
                    talk(peer, done)
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", served
        finally:
            done.set()
            listener.shutdown(socket.SHUT_RDWR)
    thread.join()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"


def dripping(first: bytes, byte: bytes) -> Talk:
    """Send `first`, then a byte every 0.01 s, so that no single wait is long."""

    def talk(peer: socket.socket, done: Event) -> None:
        peer.sendall(first)
        while not done.wait(0.01):
            peer.sendall(byte)

    return talk


def silent(peer: socket.socket, done: Event) -> None:
    """Never answer, and return when the client has closed the connection."""
    while peer.recv(65536):
        pass


def unread(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.MockTransport:
    """A transport whose responses have not been read yet, as those from a socket."""

    def answered(request: httpx.Request) -> httpx.Response:
        given = answer(request)
        return httpx.Response(given.status_code, headers=given.headers, stream=given.stream)

    return httpx.MockTransport(answered)
