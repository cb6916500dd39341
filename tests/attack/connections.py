"""Attacks with request headers and bodies that never end, never arrive, or are not HTTP."""

import contextlib
import resource
import socket
import time
from collections.abc import Callable

from benchmarks.serving import BATCH
from tests.attack.bodies import CSV, ROW, csv_rows
from tests.attack.target import Attack, Outcome, Target, ask, connect, status_of, together, whole_answer

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CLOSED_SECONDS = 35.0
"""Seconds after which the API has closed stalled connections."""

ENDLESS_BYTES = 120_000_000


def endless_headers(target: Target) -> Outcome:
    found = Outcome()
    line, sent = b"X:\r\n" * 60_000, 0
    while sent < ENDLESS_BYTES:
        with connect(target.port) as connection:
            try:
                connection.sendall(GET)
                for _ in range(500):
                    connection.sendall(line)
                    sent += len(line)
                found.failed = "headers of 120 MB were read"
            except OSError:
                sent += len(line)
            found.answers[status_of(connection, 10)] += 1
    return found


def unfinished_headers(target: Target) -> Outcome:
    return _held(target, 200, GET, b"X: y\r\n")


def absent_bodies(target: Target) -> Outcome:
    return _held(target, 512, POST + b"Content-Length: 150\r\n\r\n", b"")


def dripping_uploads(target: Target) -> Outcome:
    head = f"POST {BATCH} HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 100000\r\n\r\n"

    def meanwhile() -> str:
        status, _ = ask(target.port, "POST", BATCH, csv_rows(10), CSV, source="127.0.0.3")
        return "" if status == "200" else f"another client's batch got {status}"

    return _held(target, 18, head.encode(), b"1", meanwhile)


def malformed(target: Target) -> Outcome:
    found = Outcome()
    for case in MALFORMED:
        with connect(target.port) as connection:
            try:
                connection.sendall(case)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            found.answers[status_of(connection, 20)] += 1
    if ask(target.port, "GET", "/healthz")[0] != "200":
        found.failed = "the API does not answer any more"
    return found


def hang_ups(target: Target) -> Outcome:
    found = Outcome()
    whole = POST + b"Content-Length: %d\r\n\r\n" % len(ROW) + ROW
    upload = f"POST {BATCH} HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 500000\r\n\r\n".encode()
    for number in range(1_500):
        with connect(target.port) as connection:
            case = (whole, whole[:-20], upload + csv_rows(1_000), GET + b"\r\n")[number % 4]
            connection.sendall(case)
            found.answers["closed"] += 1
    return found


def pipelined(target: Target) -> Outcome:
    found = Outcome()
    for _ in range(300):
        with connect(target.port) as connection:
            with contextlib.suppress(OSError):
                connection.sendall((GET + b"\r\n") * 6_000)
            found.answers[status_of(connection, 10)] += 1
    return found


def at_once(target: Target) -> Outcome:
    """Send a valid request on each of many connections, and again once all are answered; replace closed connections."""
    whole = POST + b"Content-Length: %d\r\n\r\n" % len(ROW) + ROW
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    found, open_ones = Outcome(), [connect(target.port) for _ in range(1_500)]
    for _ in range(10):
        for connection in open_ones:
            with contextlib.suppress(OSError):
                connection.sendall(whole)
        for place, connection in enumerate(open_ones):
            status = whole_answer(connection, 30)
            found.answers[status] += 1
            if status != "200":
                connection.close()
                with contextlib.suppress(OSError):
                    open_ones[place] = connect(target.port)
    for connection in open_ones:
        connection.close()
    return found


def unread_answers(target: Target) -> Outcome:
    """Request long responses and read none of them."""
    return _unread(target, csv_rows(20_000), 8)


def unread_answers_in_memory(target: Target) -> Outcome:
    """Request responses of some 3 MB, many of which would fit into memory, and read none of them."""
    return _unread(target, csv_rows(9_000), 200)


def _unread(target: Target, body: bytes, count: int) -> Outcome:
    head = f"POST {BATCH} HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    found, kept = Outcome(), []

    def one() -> None:
        connection = connect(target.port)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        kept.append(connection)
        with contextlib.suppress(OSError):
            connection.sendall(head + body)
            # The answer has begun.
            connection.recv(12)

    for _ in range(0, count, 8):
        together([one] * 8)
    time.sleep(5)
    status, _ = ask(target.port, "POST", BATCH, csv_rows(10), CSV, source="127.0.0.3")
    found.answers[status] += 1
    if status != "200":
        found.failed = f"another client's batch got {status}"
    for connection in kept:
        connection.close()
    return found


def _held(target: Target, count: int, begun: bytes, drop: bytes, meanwhile: Callable[[], str] = lambda: "") -> Outcome:
    """Begin requests, send a byte of each every half second, and count the responses."""
    found, until = Outcome(), time.monotonic() + CLOSED_SECONDS
    open_ones = [connect(target.port) for _ in range(count)]
    for connection in open_ones:
        connection.sendall(begun)
    time.sleep(0.5)
    found.failed = meanwhile()
    while open_ones and time.monotonic() < until:
        time.sleep(0.5)
        for connection in list(open_ones):
            with contextlib.suppress(OSError):
                connection.send(drop)
            if (status := status_of(connection, 0.0001)) != "open":
                found.answers[status] += 1
                open_ones.remove(connection)
                connection.close()
    found.answers["open"] += len(open_ones)
    if open_ones:
        found.failed = f"{len(open_ones)} of {count} connections were open after {CLOSED_SECONDS:g} s"
    return found


MALFORMED = [
    b"",
    b"\0" * 100,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 200,
    b"GET\r\n\r\n",
    b"GET /\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET  /  HTTP/1.1\r\n\r\n",
    b"get / HTTP/1.1\r\n\r\n",
    b"BREW / HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%00%ff%2e%2e/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET //x@y:99999/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://x:99999/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET ?x HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
    *(
        GET + header + b"\r\n\r\n"
        for header in (
            b"NoColon",
            b": empty",
            b"Sp ace: x",
            b" folded: x",
            b"X: a\0b",
            b"X: \xff\xfe",
            b"X: a\rb",
            b"Host: y",
            b"Upgrade: websocket\r\nConnection: Upgrade",
            b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
            b"Expect: 200-maybe",
            b"Connection: close, keep-alive, x",
            b"Range: bytes=9-1",
            b"X-Request-ID: " + b"x" * 5_000,
            b"X-API-Key: \xc3\xa9",
            b"Accept: " + b"*/*," * 2_000,
            b"Accept-Encoding: gzip;q=nan",
            b"Cookie: " + b"a=b;" * 2_000,
        )
    ),
    *(
        POST + lines
        for lines in (
            b"Content-Length: -1\r\n\r\n",
            b"Content-Length: 1e3\r\n\r\n",
            b"Content-Length: 99999999999999999999999\r\n\r\n",
            b"Content-Length: 9223372036854775807\r\n\r\n{}",
            b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
            b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
            b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}",
            b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n",
            b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            b"Transfer-Encoding: identity\r\n\r\n{}",
            b"Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n",
            b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
            b'Content-Type: ;;;="\r\nContent-Length: 2\r\n\r\n{}',
            b"Content-Length: 0\r\n\r\n",
            b"\r\n",
        )
    ),
    POST + b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\n{}",
]

ATTACKS = (
    Attack("endless headers", "be read", endless_headers),
    Attack("200 unfinished headers", "stay open", unfinished_headers),
    Attack("512 POSTs without a body", "stay open", absent_bodies),
    Attack("18 dripping uploads", "stay open, or keep out another client's batch", dripping_uploads),
    Attack(f"{len(MALFORMED)} requests that are no HTTP", "end the API", malformed),
    Attack("clients that hang up", "count as errors of the API", hang_ups),
    Attack("pipelined requests", "be kept in memory", pipelined),
    Attack("1,500 connections that predict at once", "hold up another client's request", at_once),
    Attack("answers that nobody reads", "keep out another client's batch", unread_answers),
    Attack("200 smaller answers that nobody reads", "be kept in memory", unread_answers_in_memory),
)
