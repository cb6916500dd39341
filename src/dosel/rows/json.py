"""Rows from JSON: msgspec reads ordinary rows in about a microsecond each, the validator reads all others.

msgspec knows the declared bounds and accepts less than the validator. The validator decides on every other row, and
describes its errors.
"""

import json
import math
from collections.abc import Sequence
from operator import attrgetter
from typing import IO, Annotated, Any, NamedTuple

import msgspec
import numpy as np

from dosel.rows import json_list
from dosel.rows.columns import Columns
from dosel.rows.json_list import WINDOW, decoding
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

MODEL_FIELD = "model"
"""The field that may stand beside a row's own: the name of the model to ask."""

_UNUSUAL = (msgspec.DecodeError, UnicodeDecodeError, KeyError)
"""Exceptions after which the validator decides."""


class Row(NamedTuple):
    """One row's numbers and codes, as in `Columns`, and the model that `MODEL_FIELD` names."""

    numbers: Sequence[float]
    codes: Sequence[int]
    model: str | None


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

    def row(self, body: bytes, with_model: bool = False) -> Row:
        """One row.

        Args:
            with_model: whether `MODEL_FIELD` may stand beside the row's fields.

        Raises:
            UnreadableRows: the body is not JSON.
            InvalidRows: the row is invalid.
        """
        return self.ordinary_row(body, with_model) or self.judged_row(body, with_model)

    def ordinary_row(self, body: bytes, with_model: bool = False) -> Row | None:
        """As `row`, in about a microsecond; None for a row that only `judged_row` can read or refuse."""
        try:
            row = (self._request if with_model else self._row).decode(body)
            numbers = self._numbers(row)
            if self._optional:
                numbers = tuple(math.nan if value is None else value for value in numbers)
            if not any(numbers[place] % 1 > 0 for place in self._integers):
                codes = [known[text] for known, text in zip(self._codes, self._texts(row), strict=True)]
                return Row(numbers, codes, row.model if with_model else None)
        except _UNUSUAL:
            pass
        return None

    def rows(self, body: IO[bytes]) -> Columns:
        """The rows of a JSON list.

        Args:
            body: a file, from whose beginning the list is read.

        Raises:
            UnreadableRows: the body is not JSON.
            InvalidRows: the body is no list, or rows of it are invalid.
        """
        body.seek(0)
        try:
            parts = [self._part(part) for part in json_list.parts(body)]
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

    def judged_row(self, body: bytes, with_model: bool = False) -> Row:
        """As `row`, by the validator, for a body that msgspec refuses. Takes milliseconds, and at first a second."""
        text, model = _decoded(body), None
        if len(text.strip()) > WINDOW:
            # Nested lists would take twenty times their bytes, and seconds.
            raise UnreadableRows(f"not JSON of a row: it is longer than {WINDOW:,} characters")
        try:
            with decoding():
                value = json.loads(text) if text.strip() else None
        except json.JSONDecodeError as error:
            raise UnreadableRows(f"not JSON: {error.msg}, at line {error.lineno}, column {error.colno}") from None
        others = []
        if with_model and isinstance(value, dict):
            model = value.pop(MODEL_FIELD, None)
            if not isinstance(model, str | None):
                others = [InvalidValue(MODEL_FIELD, "the name of a registered model, or null", describe(model))]
        columns, errors = self._validator.check_rows([value])
        if errors or others:
            raise InvalidRows([*errors.get(0, []), *others])
        return Row(columns.numbers[0].tolist(), columns.codes[0].tolist(), model)

    def _judged_rows(self, body: IO[bytes]) -> Columns:
        body.seek(0)
        read, errors, parts = 0, Errors(), [self._validator.check_rows([])[0]]
        for chunk in json_list.chunks(body):
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
        # The reader itself checks whether a number is whole: msgspec's `multiple_of` lets 17.0000000001 pass.
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
