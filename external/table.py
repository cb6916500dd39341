"""The reader of CSV files in several layouts.

It takes the thirteen columns in the order of `COLUMNS`, or in any order under a header that names them, or the 55
columns of UCI's own file (ten measurements, four and forty flags, the class). A value that cannot be read raises
an error that names the file, the line and the column.
"""

import csv
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from external.columns import (
    AREAS,
    CLASSES,
    COLUMNS,
    COVER,
    ELU,
    NUMERIC,
    SOIL,
    WILDERNESS,
    area_number,
    coded,
    soil_number,
)
from external.settings import FIRST_CLASS, Coding, StartError

# Lines turned into numbers at a time: enough to be quick, few enough to keep the text of a large file out of memory.
CHUNK = 20_000

Parse = Callable[[str], int]


class _Line(NamedTuple):
    number: int
    fields: list[str]


class _Field(NamedTuple):
    """One of the thirteen columns: where it starts in a line, how many flags wide it is, how it is read."""

    name: str
    start: int
    width: int
    parse: Parse


def read_csv(path: Path, coding: Coding) -> pd.DataFrame:
    """The coded rows (see `external.columns`) of a CSV, in the order of the file.

    Args:
        path: a comma-separated file in UTF-8, with or without a header.
        coding: what its Cover_Type means; a value that it does not have is an error: the coding is never guessed.

    Raises:
        StartError: the file cannot be read, or a value in it makes no sense.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = _lines(file)
            first = next(lines, None)
            if first is None:
                raise StartError(f"DATA_API_CSV: {path} holds no rows")
            fields = _layout(path, first, coding)
            width = sum(field.width for field in fields)
            pending = iter([]) if _is_header(first) else iter([first])
            chunks = [_chunk(path, list(pending), fields, width)]
            while chunk := list(islice(lines, CHUNK)):
                chunks.append(_chunk(path, chunk, fields, width))
    except OSError as error:
        raise StartError(f"DATA_API_CSV: {path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise StartError(f"DATA_API_CSV: {path} cannot be read: {error}") from None
    return coded(np.concatenate(chunks))


def _lines(file: Iterable[str]) -> Iterator[_Line]:
    reader = csv.reader(file)
    return (_Line(reader.line_num, fields) for fields in reader if fields)


def _is_header(line: _Line) -> bool:
    """Whether a line is a header: its first field is not a number."""
    try:
        float(line.fields[0])
    except ValueError:
        return True
    return False


def _layout(path: Path, first: _Line, coding: Coding) -> list[_Field]:
    """The file's layout: a parser and a position for each of the thirteen columns, in the order of `COLUMNS`."""
    parsers: dict[str, Parse] = dict.fromkeys(NUMERIC, _whole)
    parsers |= {WILDERNESS: area_number, SOIL: soil_number, COVER: _cover(coding)}
    header = [name.strip() for name in first.fields] if _is_header(first) else None

    if len(first.fields) == len(COLUMNS):
        if header and sorted(header) != sorted(COLUMNS):
            strange = sorted(set(header) - set(COLUMNS)) or sorted(set(COLUMNS) - set(header))
            raise StartError(
                f"DATA_API_CSV: {path}, line {first.number}: not the columns of Covertype ({strange[0]!r})"
            )
        names = header or list(COLUMNS)
        return [_Field(name, names.index(name), 1, parsers[name]) for name in COLUMNS]

    flags = {WILDERNESS: len(AREAS), SOIL: len(ELU)}
    if len(first.fields) != len(NUMERIC) + sum(flags.values()) + 1:
        raise StartError(
            f"DATA_API_CSV: {path}, line {first.number}: {len(first.fields)} columns, expected {len(COLUMNS)}"
        )
    if header and (header[: len(NUMERIC)] != list(NUMERIC) or header[-1] != COVER):
        raise StartError(f"DATA_API_CSV: {path}, line {first.number}: a header of 55 columns must keep UCI's order")
    fields = []
    start = 0
    for name in COLUMNS:
        fields.append(_Field(name, start, flags.get(name, 1), parsers[name]))
        start += flags.get(name, 1)
    return fields


def _chunk(path: Path, lines: list[_Line], fields: list[_Field], width: int) -> np.ndarray:
    """The coded values of some lines, shape `(lines, 13)`."""
    for line in lines:
        if len(line.fields) != width:
            raise StartError(f"DATA_API_CSV: {path}, line {line.number}: {len(line.fields)} columns, expected {width}")
    values = np.empty((len(lines), len(fields)), dtype=np.int64)
    for position, field in enumerate(fields):
        seen: dict[str, int] = {}
        for row, line in enumerate(lines):
            text = _text(line.fields, field) if field.width > 1 else line.fields[field.start]
            number = seen.get(text)
            if number is None:
                number = seen[text] = _parsed(path, line, field, text)
            values[row, position] = number
    return values


def _text(fields: list[str], field: _Field) -> str:
    """The number of the flag that is set, as text; the text of all flags if not exactly one is set."""
    flags = [text.strip() for text in fields[field.start : field.start + field.width]]
    if flags.count("1") == 1 and flags.count("0") == len(flags) - 1:
        return str(flags.index("1") + 1)
    return " ".join(flags)


def _parsed(path: Path, line: _Line, field: _Field, text: str) -> int:
    try:
        return field.parse(text)
    except ValueError as error:
        raise StartError(f"DATA_API_CSV: {path}, line {line.number}, column {field.name}: {error}") from None


def _whole(text: str) -> int:
    """An integer of two bytes; "2596.0" is one too.

    Raises:
        ValueError: anything else, the empty field included.
    """
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    if not number.is_integer() or abs(number) > np.iinfo(np.int16).max:
        raise ValueError(f"{text!r} is not a whole number in range")
    return int(number)


def _cover(coding: Coding) -> Parse:
    first = FIRST_CLASS[coding]

    def parse(text: str) -> int:
        number = _whole(text)
        if not first <= number < first + CLASSES:
            raise ValueError(f"{text!r} is no class of DATA_API_CSV_CLASSES={coding} ({first}-{first + CLASSES - 1})")
        return number - first + 1

    return parse
