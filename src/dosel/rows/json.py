"""Rows from JSON: msgspec reads ordinary rows in about a microsecond each, the validator reads all others.

msgspec knows the declared bounds and accepts less than the validator. The validator decides on every other row, and
describes its errors.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import numpy as np

from dosel.rows.columns import Columns
from dosel.rows.validation import (
    MAX_INVALID_ROWS,
    Errors,
    InvalidRows,
    InvalidValue,
    UnreadableRows,
    Validator,
    describe,
)
from dosel.usecases import Category, Feature, UseCase

CHUNK_ROWS = 256
"""Rows that the validator gets at once."""

MODEL_FIELD = "model"
"""The field that may stand beside a row's own: the name of the model to ask."""

_UNUSUAL = (msgspec.DecodeError, UnicodeDecodeError, KeyError)
"""Exceptions after which the validator decides."""

PART_BYTES = 1 << 17

WINDOW = 1 << 16
"""Characters of a list that are read at a time; no row may be longer, without the blanks around it."""
LONGEST_ROW_BYTES = 4 * WINDOW

LONGEST_TOKEN = 16
"""An error so many characters before a window's end may mean only that the window cuts a literal or an escape."""

_DECODER = json.JSONDecoder()
_LIST = re.compile(r"[ \t\n\r]*\[[ \t\n\r]*(\]?)[ \t\n\r]*")
_LIST_OF_BYTES = re.compile(rb"[ \t\n\r]*\[[ \t\n\r]*")
_ROW_END = re.compile(rb"\}[ \t\n\r]*,")
_NEXT = re.compile(r"[ \t\n\r]*([,\]])[ \t\n\r]*")


class JsonReader:
    """Reads rows of a use case."""

    def __init__(self, use_case: UseCase) -> None:
        self._validator = Validator(use_case)
        # msgspec wants fields with a default last; rows are read by name, so their order means nothing.
        fields = [_field(feature) for feature in sorted(use_case.features, key=lambda feature: feature.optional)]
        # Rows hold no cycles, so the garbage collector need not look through them.
        row: Any = msgspec.defstruct("Row", fields, forbid_unknown_fields=True, gc=False)
        request: Any = msgspec.defstruct(
            "Request", [(MODEL_FIELD, str | None, None)], bases=(row,), kw_only=True, gc=False
        )
        self._row = msgspec.json.Decoder(row)
        self._request = msgspec.json.Decoder(request)
        self._rows = msgspec.json.Decoder(list[row])
        self._numbers = _tuple_of([number.name for number in use_case.numbers])
        self._texts = _tuple_of([category.name for category in use_case.categories])
        self._codes = [self._validator.codes[category.name] for category in use_case.categories]
        self._integers = [place for place, number in enumerate(use_case.numbers) if number.integer]
        self._width = len(use_case.numbers)
        self._optional = any(number.optional for number in use_case.numbers)

    def row(self, body: bytes, with_model: bool = False) -> tuple[Sequence[float], Sequence[int], str | None]:
        """One row's numbers and codes, as in `Columns`, and the model that `MODEL_FIELD` names.

        Args:
            with_model: whether `MODEL_FIELD` may stand beside the row's fields.

        Raises:
            UnreadableRows: the body is not JSON.
            InvalidRows: the row is invalid.
        """
        try:
            row = (self._request if with_model else self._row).decode(body)
            numbers = self._numbers(row)
            if self._optional:
                numbers = tuple(math.nan if value is None else value for value in numbers)
            if not any(numbers[place] % 1 > 0 for place in self._integers):
                codes = [known[text] for known, text in zip(self._codes, self._texts(row), strict=True)]
                return numbers, codes, row.model if with_model else None
        except _UNUSUAL:
            pass
        return self._judged_row(body, with_model)

    def rows(self, body: bytes) -> Columns:
        """The rows of a JSON list.

        Raises:
            UnreadableRows: the body is not JSON.
            InvalidRows: the body is no list, or rows of it are invalid.
        """
        try:
            parts = [self._part(part) for part in _parts(body)]
        except _UNUSUAL:
            return self._judged_rows(body)
        if len(parts) > 1 and not len(parts[-1]):
            # The list ends with a comma.
            return self._judged_rows(body)
        return Columns(np.vstack([part.numbers for part in parts]), np.vstack([part.codes for part in parts]))

    def _part(self, body: bytes) -> Columns:
        rows = self._rows.decode(body)
        numbers = np.array([self._numbers(row) for row in rows], np.float64).reshape(len(rows), self._width)
        if (numbers[:, self._integers] % 1 > 0).any():
            raise msgspec.ValidationError
        texts = zip(*map(self._texts, rows), strict=True)
        codes = [
            np.fromiter(map(known.__getitem__, column), np.intp, len(rows))
            for known, column in zip(self._codes, texts, strict=False)
        ]
        return Columns(numbers, Columns.stack([], codes, len(rows)).codes)

    def _judged_row(self, body: bytes, with_model: bool) -> tuple[Sequence[float], Sequence[int], str | None]:
        text, model = _decoded(body), None
        if len(text.strip()) > WINDOW:
            # Nested lists would take twenty times their bytes, and seconds.
            raise UnreadableRows(f"not JSON of a row: it is longer than {WINDOW:,} characters")
        with _reading():
            value = json.loads(text) if text.strip() else None
        others = []
        if with_model and isinstance(value, dict):
            model = value.pop(MODEL_FIELD, None)
            if not isinstance(model, str | None):
                others = [InvalidValue(MODEL_FIELD, "the name of a registered model, or null", describe(model))]
        columns, errors = self._validator.check_rows([value])
        if errors or others:
            raise InvalidRows([*errors.get(0, []), *others])
        return columns.numbers[0].tolist(), columns.codes[0].tolist(), model

    def _judged_rows(self, body: bytes) -> Columns:
        """The rows of a list, read in chunks, since a list of other values could fill the memory."""
        read, errors, parts = 0, Errors(), [self._validator.check_rows([])[0]]
        for chunk in _chunks(_decoded(body)):
            columns, found = self._validator.check_rows(chunk)
            errors |= {read + place + 1: row_errors for place, row_errors in found.items()}
            if len(errors) >= MAX_INVALID_ROWS:
                break
            read += len(chunk)
            parts.append(columns)
        if errors:
            raise InvalidRows.numbered(errors)
        return Columns(np.vstack([part.numbers for part in parts]), np.vstack([part.codes for part in parts]))


def _field(feature: Feature) -> Any:
    if isinstance(feature, Category):
        kind: Any = str
    else:
        # Whether a number is whole is checked beside: `multiple_of` lets 17.0000000001 pass.
        kind = Annotated[float, msgspec.Meta(ge=feature.minimum, le=feature.maximum)]
    return (feature.name, kind | None, None) if feature.optional else (feature.name, kind)


def _tuple_of(names: Sequence[str]) -> Any:
    """A function that takes these attributes; `attrgetter` alone gives no tuple for a single one."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda row: tuple(getattr(row, name) for name in names)


def _decoded(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableRows(f"not JSON in UTF-8: {error.reason} at byte {error.start + 1}") from None


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except json.JSONDecodeError as error:
        raise UnreadableRows(f"not JSON: {error.msg}, at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise UnreadableRows("not JSON: it is nested too deeply") from None
    except ValueError:
        raise UnreadableRows("not JSON: a number has too many digits") from None


def _parts(body: bytes) -> Iterator[bytes]:
    """A JSON list as smaller lists, since the decoder keeps all other threads waiting while it reads one.

    The list is cut at braces. A brace within a text gives a part that is not JSON.
    """
    if not (found := _LIST_OF_BYTES.match(body)):
        raise msgspec.DecodeError("no list, or one after a byte order mark")
    place = found.end()
    while len(body) > (last := place + PART_BYTES + LONGEST_ROW_BYTES):
        # Within bounds: all other threads wait for this search, too.
        if not (cut := _ROW_END.search(body, place + PART_BYTES, last)):
            raise msgspec.DecodeError("a list of other values than rows, or of very long rows")
        yield b"[%b}]" % body[place : cut.start()]
        place = cut.end()
    yield b"[" + body[place:]


def _chunks(text: str) -> Iterator[list[Any]]:
    """The items of a JSON list in small lists, read from windows of the text.

    Raises:
        UnreadableRows: the text is not JSON, or an item is longer than a window.
        InvalidRows: it is no list.
    """
    with _reading():
        if not (found := _LIST.match(text)):
            got = describe(json.loads(text)) if len(text) <= WINDOW else f"{len(text):,} characters that begin no list"
            raise InvalidRows([InvalidValue(None, "a JSON list of rows", got)])
        place = start = found.end()
        window: str = text[start : start + WINDOW]
        chunk: list[Any] = []
        while found[1] != "]":
            value, end = _item(text, window, start, place)
            if end is None:
                # The window ends within this item.
                yield chunk
                window, start, chunk = text[place : place + WINDOW], place, []
                continue
            chunk.append(value)
            if len(chunk) == CHUNK_ROWS:
                yield chunk
                chunk = []
            if not (found := _NEXT.match(text, end)):
                raise json.JSONDecodeError("Expecting ',' delimiter", text, end)
            place = found.end()
        if place != len(text):
            raise json.JSONDecodeError("Extra data", text, place)
        yield chunk


def _item(text: str, window: str, start: int, place: int) -> tuple[Any, int | None]:
    """Decode the item at `place` of the text from a window that begins at `start`.

    Returns:
        The item, and the place where the item ends; None instead of the place if the window ends first.

    Raises:
        JSONDecodeError: it is not JSON.
        UnreadableRows: it is longer than a window.
    """
    is_last, is_fresh = start + len(window) >= len(text), start == place
    try:
        value, end = _DECODER.raw_decode(window, place - start)
        # A number may go on.
        if is_last or end < len(window):
            return value, start + end
    except json.JSONDecodeError as error:
        at_end = error.pos >= len(window) - LONGEST_TOKEN or error.msg.startswith("Unterminated")
        if is_last or (is_fresh and not at_end):
            raise json.JSONDecodeError(error.msg, text, start + error.pos) from None
    if is_fresh:
        raise UnreadableRows(f"not JSON of rows: one of them is longer than {WINDOW:,} characters")
    return None, None
