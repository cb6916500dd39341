"""Rows crafted to cost memory or time: the readers stop early, and their memory does not grow with the body."""

import json
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from dosel.rows import json_list
from dosel.rows.csv import CsvReader
from dosel.rows.json import JsonReader
from dosel.rows.validation import MAX_INVALID_ROWS, InvalidRows, UnreadableRows
from dosel.usecases.covertype import COVERTYPE

MOST_MB = {"json": 80, "csv": 130}
"""The peak of memory while a body of 15 MB or more is read, with the modules that are imported for it, but Arrow."""

MEASURED = """
import sys
from pathlib import Path
import pyarrow.compute, pyarrow.csv
from dosel.errors import DoselError
from dosel.rows.csv import CsvReader
from dosel.rows.json import JsonReader
from dosel.usecases.covertype import COVERTYPE

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

kind, file = sys.argv[1:]
reader = CsvReader(COVERTYPE) if kind == "csv" else JsonReader(COVERTYPE)
Path("/proc/self/clear_refs").write_text("5")
before = peak()
try:
    with open(file, "rb") as body:
        if kind == "csv":
            for _ in reader.blocks(body): pass
        else:
            reader.rows(body)
except DoselError as error:
    print(type(error).__name__)
print(peak() - before)
"""

HEADER = ",".join(COVERTYPE.feature_names).encode()
VALUES = ",".join(map(str, COVERTYPE.example.values()))
LISTS = b"[" + b"[]," * 5_000_000 + b"[]]"
CATEGORY = COVERTYPE.categories[0]


def padded() -> bytes:
    value = str(COVERTYPE.example[CATEGORY.name])
    return "\n".join((HEADER.decode(), *(VALUES.replace(value, value + " " * n) for n in range(5_000)))).encode()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("json", b"[" + b",".join([b"{}"] * 5_000_000) + b"]"),
        ("json", LISTS),
        ("json", b'[{"Elevation":%b}]' % LISTS),
        ("json", b'{"rows":%b}' % LISTS),
        ("csv", ",".join(f"c{n}" for n in range(140_000)).encode() + b"\n" + b"," * 140_000),
        ("csv", HEADER + b"\n" + b"1,2\n" * 5_000_000),
        ("csv", padded()),
    ],
    ids=["empty rows", "lists", "a long row", "no list", "wide header", "wrong widths", "padded"],
)
def test_reading_a_body_takes_little_memory(kind: str, body: bytes, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(body)
    command = [sys.executable, "-c", MEASURED, kind, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout.split()[-1]) < MOST_MB[kind]


@pytest.mark.parametrize("lines", [200_000, 5_000_000])
def test_reading_stops_at_the_hundredth_line_with_a_wrong_number_of_columns(lines: int) -> None:
    body = BytesIO(HEADER + b"\n" + b"1,2\n" * lines)
    began = time.process_time()
    with pytest.raises(InvalidRows) as refused:
        list(CsvReader(COVERTYPE).blocks(body))
    assert len(refused.value.errors) == MAX_INVALID_ROWS
    assert time.process_time() - began < 2


def test_spellings_of_a_category_are_not_cached() -> None:
    reader = CsvReader(COVERTYPE)
    codes = reader._validator.codes[CATEGORY.name]
    before = len(codes)
    assert sum(len(block.columns) for block in reader.blocks(BytesIO(padded()))) == 5_000
    JsonReader(COVERTYPE).row(json.dumps(dict(COVERTYPE.example) | {CATEGORY.name: " Rawah " * 1}).encode())
    assert len(codes) == before


@pytest.mark.parametrize(
    "body", [LISTS[:900_000], b'{"Elevation":%b}' % LISTS[:900_000], b'{"Elevation":"' + b"x" * 900_000]
)
def test_a_row_beyond_the_length_limit_is_refused_without_parsing(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", None)
    with pytest.raises(UnreadableRows, match="longer than 65,536 characters"):
        JsonReader(COVERTYPE).row(body)


def test_whitespace_around_a_row_does_not_count_towards_its_length() -> None:
    row = dict(COVERTYPE.example) | {"Elevation": "2000"}
    numbers, _, _ = JsonReader(COVERTYPE).row(json.dumps(row).encode() + b" " * 200_000)
    assert numbers[0] == 2000


@pytest.mark.parametrize("separator", [",", " ,\n "])
def test_chunk_size_does_not_change_the_rows_of_a_list(separator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [dict(COVERTYPE.example) | {"Elevation": 2000 + number} for number in range(50)]
    body = ("[" + separator.join(map(json.dumps, rows)) + "]").encode()
    whole = JsonReader(COVERTYPE).rows(BytesIO(body))
    for size in range(1, 700, 50):
        monkeypatch.setattr(json_list, "PART_BYTES", size)
        monkeypatch.setattr(json_list, "WINDOW", 600 + size)
        for read in (JsonReader(COVERTYPE).rows(BytesIO(body)), JsonReader(COVERTYPE)._judged_rows(BytesIO(body))):
            assert np.array_equal(read.numbers, whole.numbers)
            assert np.array_equal(read.codes, whole.codes)


@pytest.mark.parametrize("end", [",]", ",]\n", ",,{}]", "", "}]", "],[]"])
def test_a_malformed_list_end_is_invalid_json_for_every_chunk_size(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = json.dumps(COVERTYPE.example)
    for size in (1, len(row) - 2, len(row) + 1, 10_000):
        monkeypatch.setattr(json_list, "PART_BYTES", size)
        with pytest.raises(UnreadableRows, match="not JSON"):
            JsonReader(COVERTYPE).rows(BytesIO(f"[{row},{row}{end}".encode()))


def test_an_error_has_the_row_number_within_the_whole_list(monkeypatch: pytest.MonkeyPatch) -> None:
    row = json.dumps(COVERTYPE.example)
    monkeypatch.setattr(json_list, "WINDOW", len(row) + 50)
    with pytest.raises(UnreadableRows, match=r"at line 3, column \d+"):
        JsonReader(COVERTYPE).rows(BytesIO(f"[{row},\n{row},\n{{'x': 1}}, {row}]".encode()))


def test_windows_cut_neither_characters_nor_blanks_nor_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    items = ["é€😀", -12345.5e2, {"a": ["}", None]}, True] * 20
    for size in range(40, 60):
        monkeypatch.setattr(json_list, "WINDOW", size)
        for blanks in ("", " \n\t" * 50):
            text = f"{blanks}[{blanks}" + f"{blanks},{blanks}".join(map(json.dumps, items)) + f"{blanks}]{blanks}"
            for body in (text.encode(), json.dumps(items, ensure_ascii=False).encode("utf-8-sig")):
                found = [item for chunk in json_list.chunks(BytesIO(body)) for item in chunk]
                assert found == items


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[1,\n" + b" " * 300 + b"\n\n  x]", "not JSON: Expecting value, at line 4, column 3"),
        (b"[1]" + b" " * 300 + b"2", "not JSON: Extra data, at line 1, column 304"),
        (b"[" + b"1," * 300 + b'"\xc3(",2]', "not JSON in UTF-8: invalid continuation byte at byte 603"),
        (b"[" + b"1," * 300 + b'"\xc3', "not JSON in UTF-8: unexpected end of data at byte 603"),
        (b"[" + b"1," * 300, "not JSON: Expecting value, at line 1, column 602"),
        (b'["' + b"x" * 300 + b'"]', "not JSON of rows: one of them is longer than 50 characters"),
    ],
)
def test_an_error_names_its_place_in_the_whole_list(body: bytes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_list, "WINDOW", 50)
    with pytest.raises(UnreadableRows) as refused:
        list(json_list.chunks(BytesIO(body)))
    assert str(refused.value) == message
