"""Attacks with the content of request bodies."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from functools import partial
from http.client import HTTPConnection
from itertools import chain, cycle, islice, repeat

from benchmarks.serving import BATCH
from dosel.settings import Settings
from dosel.usecases.covertype import COVERTYPE
from tests.attack.target import HOST, Attack, Outcome, Target, ask, status_of, together

SECONDS = 8.0
"""Seconds for which an attack is repeated."""

LINE_SECONDS = 5.0
"""Longest response time for lines with a wrong number of columns."""

ODD_AT_ONCE = 64

UPLOAD_PIECE = 1_000_000

CSV = {"Content-Type": "text/csv"}
JSON = {"Content-Type": "application/json"}
ROW = json.dumps(COVERTYPE.example).encode()
AS_TEXT = json.dumps({name: str(value) for name, value in COVERTYPE.example.items()}).encode()
"""A row that the validator reads."""

_HEADER = ",".join(COVERTYPE.feature_names)
_VALUES = ",".join(map(str, COVERTYPE.example.values()))


def csv_rows(count: int) -> bytes:
    return (f"{_HEADER}\n" + f"{_VALUES}\n" * count).encode()


def padded_spellings(target: Target) -> Outcome:
    category = COVERTYPE.categories[0]
    value = str(COVERTYPE.example[category.name])

    def batch(first: int) -> bytes:
        lines = (_VALUES.replace(value, value + " " * (first + n)) for n in range(4_000))
        return "\n".join((_HEADER, *lines)).encode()

    return _repeated(target, (batch(first) for first in range(1, 100_000, 40)))


def wide_header(target: Target) -> Outcome:
    wide = (",".join(f"c{n}" for n in range(140_000)) + "\n").encode()
    return _repeated(target, cycle([wide, _HEADER.encode() + b"," + wide + b"," * 200_000]))


def empty_rows(target: Target) -> Outcome:
    return _repeated(target, cycle([b"[" + b",".join([b"{}"] * 5_000_000) + b"]"]), JSON)


def nested(target: Target) -> Outcome:
    """Send bodies that are small as text and large in memory."""
    lists = b"[" + b"[]," * 5_000_000 + b"[]]"
    bodies = (lists, b'[{"Elevation":%b}]' % lists, b'{"rows":%b}' % lists, b"[" * 1_000_000, b'"' + b"x" * 15_000_000)
    return _repeated(target, cycle(bodies), JSON)


def large_single_rows(target: Target) -> Outcome:
    lists = b"[" + b"[]," * 300_000 + b"[]]"
    bodies = (lists, b'{"Elevation":%b}' % lists, b'{"Elevation":"%b"}' % (b"x" * 900_000), b"9" * 900_000)
    return _repeated(target, cycle(bodies), JSON, path="/predict")


def long_numbers(target: Target) -> Outcome:
    """Send long numbers before a letter, which some grammars read in the square of their length."""
    bodies = [json.dumps(COVERTYPE.example | {"Elevation": "9" * size + "x"}).encode() for size in (2_000, 60_000)]
    return _repeated(target, cycle(bodies), JSON, path="/predict")


def long_numbers_in_csv(target: Target) -> Outcome:
    return _repeated(target, repeat(f"{_HEADER}\n{'9' * 1_000_000}x,{_VALUES.partition(',')[2]}\n".encode()))


def feedback_of_empty_lines(target: Target) -> Outcome:
    return _repeated(target, repeat(b"request_id,truth\n" + b",\n" * 400_000), path=f"/feedback/{COVERTYPE.name}")


def odd_rows(target: Target) -> Outcome:
    """Send rows with a hundred unknown fields over many connections."""
    found, until = Outcome(), time.monotonic() + SECONDS
    body = json.dumps(COVERTYPE.example | {f"f{'_a' * 290}{n}": "x" for n in range(100)}).encode()

    def one() -> None:
        while time.monotonic() < until:
            status, _ = ask(target.port, "POST", "/predict", body, JSON)
            found.answers[status] += 1

    together([one] * ODD_AT_ONCE)
    return found


def wrong_widths(target: Target) -> Outcome:
    found = Outcome()
    for count in (200_000, 7_000_000):
        began = time.monotonic()
        status, _ = ask(target.port, "POST", BATCH, _HEADER.encode() + b"\n" + b"1,2\n" * count, CSV)
        found.answers[status] += 1
        if (seconds := time.monotonic() - began) > LINE_SECONDS:
            found.failed = f"{count:,} lines of a wrong width took {seconds:.0f} s"
    return found


def parallel_uploads(target: Target) -> Outcome:
    found = Outcome()
    rows = b"[" + b",".join([ROW] * (19_000_000 // (len(ROW) + 1))) + b"]"
    large = csv_rows(400_000)

    def one(body: bytes, kind: dict[str, str]) -> None:
        status, _ = ask(target.port, "POST", BATCH, body, kind, seconds=120)
        found.answers[status] += 1

    together([*[partial(one, rows, JSON)] * 6, *[partial(one, large, CSV)] * 6])
    return found


def largest_uploads(target: Target) -> Outcome:
    """Ten CSVs of 200 MB at once, two of them over the limit; each is read to its end to list its invalid rows."""
    found = Outcome()
    line = _VALUES.encode() + b"\n"
    lines = line * (UPLOAD_PIECE // len(line))

    def one(size: int) -> None:
        with closing(HTTPConnection(HOST, target.port, timeout=120, source_address=(HOST, 0))) as connection:
            head = _HEADER.encode() + b"\n-1" + line
            count = (size - len(head)) // len(lines)
            headers = CSV | {"Content-Length": str(len(head) + count * len(lines))}
            # After a response, the API reads only a limited part of the rest.
            with suppress(OSError):
                connection.request("POST", BATCH, chain([head], repeat(lines, count)), headers)
            answer = status_of(connection.sock, 60)
        found.answers[answer] += 1
        if answer not in ("413", "422", "503"):
            found.failed = f"{size / 1e6:,.0f} MB: {answer}"

    limit = Settings().max_batch_bytes
    together([*[partial(one, limit)] * 8, *[partial(one, limit + 10 * UPLOAD_PIECE)] * 2])
    return found


def _repeated(target: Target, bodies: Iterable[bytes], headers: dict[str, str] = CSV, path: str = BATCH) -> Outcome:
    found, until = Outcome(), time.monotonic() + SECONDS
    for body in _until(bodies, until):
        status, _ = ask(target.port, "POST", path, body, headers)
        found.answers[status] += 1
    return found


def _until(bodies: Iterable[bytes], until: float) -> Iterator[bytes]:
    for body in islice(bodies, 1_000):
        if time.monotonic() > until:
            return
        yield body


ATTACKS = (
    Attack("spellings padded with blanks", "be remembered", padded_spellings),
    Attack("a header of 140,000 columns", "be read", wide_header),
    Attack("15 MB of empty rows", "be read beyond the hundredth", empty_rows),
    Attack("15 MB of nested lists", "be built in memory", nested),
    Attack("single rows of 1 MB", "keep the event loop busy", large_single_rows),
    Attack("long numbers before a letter", "keep the event loop busy", long_numbers),
    Attack("long numbers in a CSV", "hold the interpreter's lock", long_numbers_in_csv),
    Attack("feedback of 400,000 empty lines", "be kept in memory", feedback_of_empty_lines),
    Attack(f"{ODD_AT_ONCE} connections with odd rows", "delay predictions", odd_rows),
    Attack("lines of a wrong width", f"take more than {LINE_SECONDS:g} s", wrong_widths),
    Attack("12 large uploads at once", "fill the memory", parallel_uploads),
    Attack("10 uploads of 200 MB at once", "fill the memory or go without an answer", largest_uploads),
)
