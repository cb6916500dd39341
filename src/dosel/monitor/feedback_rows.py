"""Feedback as it is received, as JSON or CSV: the truth about answered rows."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from dosel.rows import json_list
from dosel.rows.csv import MAX_HEADER_BYTES, read_header
from dosel.rows.validation import MAX_INVALID_ROWS, Errors, InvalidRows, InvalidValue, UnreadableRows, describe
from dosel.usecases import Target, plain_name

MAX_ROWS = 10_000
"""Most rows of one call; all of them are stored in one transaction."""

MAX_ROW_NUMBER = 2**31 - 1

MAX_FIELDS = 20
"""Most fields of a row. An error names each unknown field; a row with more than these is refused as a whole."""

ID_PATTERN = "^[!-~]{1,64}$"
"""What a request id looks like."""

NO_CODING = ""
"""Classes may be given by the codes that answers have, and not by the numbers of a source's coding."""


class GivenTruth(NamedTuple):
    """The truth about row `row_no`, from 1, of a request: the code of its class."""

    request_id: str
    row_no: int
    truth: int


@dataclass(frozen=True)
class _Column:
    name: str
    aliases: tuple[str, ...] = ()


REQUEST_ID, ROW, TRUTH = "request_id", "row", "truth"


def read_json(target: Target, body: bytes) -> list[GivenTruth]:
    """The rows of a JSON list of objects with the fields request_id, truth and, for a bulk request, row.

    Raises:
        UnreadableRows: the body is not JSON.
        InvalidRows: it is no list, or rows of it are invalid.
    """
    # Piece by piece: other threads wait while Python decodes a large text.
    return _judged(target, (row for rows in json_list.chunks(io.BytesIO(body)) for row in rows))


def read_csv(target: Target, body: bytes) -> list[GivenTruth]:
    """The rows of a CSV with the columns request_id, truth and, for a bulk request, row; others are ignored.

    Raises:
        UnreadableRows: the body is not CSV.
        InvalidRows: a column is missing, or rows are invalid.
    """
    return _judged(target, csv_rows(body))


def csv_rows(body: bytes) -> Iterator[Any]:
    """The rows of a CSV as mappings, not validated; a line with more or fewer values than the header as a list.

    The rows come one by one: as mappings, a megabyte of empty lines would take 300 MB.

    Raises:
        UnreadableRows, InvalidRows: as `read_csv`.
    """
    header = read_header([_Column(REQUEST_ID), _Column(TRUTH)], body[:MAX_HEADER_BYTES])
    names = [plain_name(name) for name in header.names]
    places = dict(header.places)
    if ROW in names:
        places[ROW] = names.index(ROW)
    width = len(names)
    try:
        text = io.StringIO(body[header.size :].decode(), newline="")
        for line in csv.reader(text, delimiter=header.delimiter, strict=True):
            if line:
                yield {name: line[at] for name, at in places.items()} if len(line) == width else line
    except (UnicodeDecodeError, csv.Error) as error:
        raise UnreadableRows(f"not CSV in UTF-8: {error}") from None


def _judged(target: Target, rows: Iterable[Any]) -> list[GivenTruth]:
    given, errors = [], Errors()
    for number, row in enumerate(rows, 1):
        if number > MAX_ROWS:
            raise InvalidRows([InvalidValue(None, f"1 to {MAX_ROWS:,} rows", "more")])
        truth, wrong = _judge(target, row)
        if truth is not None:
            given.append(truth)
        else:
            errors[number] = wrong
            if len(errors) == MAX_INVALID_ROWS:
                break
    if errors:
        raise InvalidRows.numbered(errors)
    if not given:
        raise InvalidRows([InvalidValue(None, f"1 to {MAX_ROWS:,} rows", "none")])
    return given


def _judge(target: Target, row: Any) -> tuple[GivenTruth | None, list[InvalidValue]]:
    fields = (REQUEST_ID, ROW, TRUTH)
    if not isinstance(row, Mapping) or len(row) > MAX_FIELDS:
        return None, [InvalidValue(None, f"an object with the fields {', '.join(fields)}", describe(row))]
    wrong = [
        InvalidValue(str(name)[:100], "no field of this name", describe(row[name])) for name in row.keys() - {*fields}
    ]
    request_id = row.get(REQUEST_ID)
    if not isinstance(request_id, str) or not re.fullmatch(ID_PATTERN, request_id):
        wrong.append(InvalidValue(REQUEST_ID, "the X-Dosel-Request-ID of an answer", describe(request_id)))
    row_no = _whole(row.get(ROW))
    if row_no is None:
        wrong.append(InvalidValue(ROW, "the number of a row, from 1", describe(row.get(ROW))))
    truth = class_code(target, row.get(TRUTH))
    if truth is None:
        wrong.append(InvalidValue(TRUTH, target.describe_expected(), describe(row.get(TRUTH))))
    if wrong or row_no is None or truth is None:
        return None, wrong
    return GivenTruth(str(request_id), row_no, truth), []


def class_code(target: Target, value: Any) -> int | None:
    """The code of a class given by its label, or as ingest reads it; None if it is not acceptable."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value)
    named = {label.casefold(): code for code, label in target.labels.items()}
    code = named.get(text.strip().casefold())
    return target.code(text, NO_CODING) if code is None else code


def _whole(value: Any) -> int | None:
    """A row's number; 1 if none is given, None if it is not acceptable."""
    if value is None or value == "":
        return 1
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 12:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        # JSON Schema's integers include 3.0.
        value = int(value)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and 1 <= value <= MAX_ROW_NUMBER else None
