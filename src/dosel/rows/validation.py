"""The validator of feature values, for ingest and the API.

A value is validated by its text, so that 17, "17" and a CSV's 17 have the same result and the same message. A missing
value (None, blank, or one of the use case's `missing` marks) is valid for an optional feature only.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dosel.errors import DoselError
from dosel.rows.columns import UNKNOWN, Codes, Columns, Floats
from dosel.rows.shortened import MAX_SHOWN, cut
from dosel.usecases import Category, Feature, Number, Target, UseCase, as_number, plain_name

MOST_GUESSES = 5
"""Unknown fields of a row for which a known one is proposed."""

FEW_ROWS = 16
"""Up to so many mappings are validated without Arrow, whose arrays import pandas: half a second and 60 MB."""

MAX_EXTRA = 100
"""With more unknown fields than this, a mapping is refused without naming each of them."""

MAX_INVALID_ROWS = 100
"""Most invalid rows that an error lists; reading stops after them."""

MAX_ERRORS = 2_000
"""Most errors that an error lists: a row can have hundreds of its own."""

MESSAGES = 3
"""Errors whose messages `InvalidRows` repeats as its text."""

_GOT = re.compile(r', got (?:"(?:[^"\\]|\\.)*"|.*?(?=; [^;]*: expected |$))', re.DOTALL)
"""What was received: a text in quotes, which may itself look like the next message, or all up to the next message."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class InvalidValue:
    """An invalid value.

    `field` is the feature's name, or the received name if it is no feature; None for a whole row or body. `row` counts
    from 1; it is None for a single row.
    """

    field: str | None
    expected: str
    got: str
    row: int | None = None

    @property
    def message(self) -> str:
        row = "" if self.row is None else f"row {self.row}: "
        field = "" if self.field is None else f"{self.field}: "
        return f"{row}{field}expected {self.expected}, got {self.got}"


Errors = dict[int, list[InvalidValue]]
"""The errors of invalid rows, by the row's place or number."""


class InvalidRows(DoselError):
    """Rows are invalid; `errors` are in the order of the rows, then of the features."""

    def __init__(self, errors: Sequence[InvalidValue]) -> None:
        super().__init__("; ".join(error.message for error in errors[:MESSAGES]))
        self.errors = errors

    @classmethod
    def numbered(cls, errors: Errors) -> Self:
        """The first `MAX_ERRORS` errors of the first `MAX_INVALID_ROWS` rows, given by the rows' numbers."""
        first = sorted(errors)[:MAX_INVALID_ROWS]
        listed = islice(((number, error) for number in first for error in errors[number]), MAX_ERRORS)
        return cls([replace(error, row=number) for number, error in listed])


class UnreadableRows(DoselError):
    """The body is not in its declared format; the message continues "the body is"."""


class CategoryCodes(dict[str | None, int]):
    """The code of each text that a category accepts; KeyError for other texts."""

    def __init__(self, category: Category, missing: frozenset[str]) -> None:
        codes = {value: code for code, value in enumerate(category.values)}
        self._folded = {folded: codes[value] for folded, value in category.spellings.items()}
        if category.optional:
            self._folded |= dict.fromkeys(missing, UNKNOWN)
        super().__init__(codes.items())

    def __missing__(self, text: str | None) -> int:
        return self._folded["" if text is None else text.strip().casefold()]

    def find(self, text: str | None) -> int | None:
        """The code, or None if the category does not accept the text."""
        try:
            return self[text]
        except KeyError:
            return None


@dataclass(frozen=True)
class CheckedRows:
    """The result for some rows.

    `columns` has the rows; an invalid value is NaN or `UNKNOWN`. `refused` has the features with invalid values, in
    declared order, each with a mask of shape (rows,).
    """

    columns: Columns
    refused: Sequence[tuple[Feature | Target, Mask]]

    def errors(self, received: Callable[[int, str], Any], limit: int | None = None) -> Errors:
        """The errors by the row's place.

        Args:
            received: returns the received value at a place, by the feature's name.
            limit: most invalid values of each feature that are described.
        """
        errors: Errors = {}
        for feature, bad in self.refused:
            for place in np.flatnonzero(bad)[:limit].tolist():
                errors.setdefault(place, []).append(invalid_value(feature, received(place, feature.name)))
        return errors


class Validator:
    """Validates rows by a use case's declaration."""

    def __init__(self, use_case: UseCase) -> None:
        self.use_case = use_case
        # A blank is how a CSV writes that there is no value.
        self._missing = frozenset({"", *(mark.strip().casefold() for mark in use_case.missing)})
        self.codes = {category.name: CategoryCodes(category, self._missing) for category in use_case.categories}
        self._by_plain_name = {plain_name(name): f.name for f in use_case.features for name in (*f.aliases, f.name)}

    def check(self, texts: Any, rows: int) -> CheckedRows:
        """Validate rows of text. Each different text of an Arrow array is validated once.

        Args:
            texts: gives each feature's texts by its name, an Arrow array or a list of a few; null is a missing value.
            rows: how many there are.
        """
        refused: list[tuple[Feature | Target, Mask]] = []
        numbers: list[Floats] = []
        codes: list[Codes] = []
        for feature in self.use_case.features:
            column = texts[feature.name]
            if isinstance(feature, Number):
                values, bad = self._check_numbers(feature, column)
                numbers.append(values)
            else:
                values, bad = judge_spellings(column, self.codes[feature.name].find, UNKNOWN, np.intp)
                codes.append(values)
            if bad.any():
                refused.append((feature, bad))
        return CheckedRows(Columns.stack(numbers, codes, rows), refused)

    def check_rows(self, rows: Sequence[Any]) -> tuple[Columns, Errors]:
        """Validate mappings by field, with values of any type. Names match as in a CSV's header.

        Returns:
            The rows, which are meaningless if there are errors, and the errors by the row's place.
        """
        named = [self._name_fields(row) for row in rows]
        texts = {name: [_text_of(fields.get(name)) for fields, _ in named] for name in self.use_case.feature_names}
        if len(rows) <= FEW_ROWS:
            checked = self.check(texts, len(rows))
        else:
            import pyarrow as pa

            checked = self.check({name: pa.array(column, pa.string()) for name, column in texts.items()}, len(rows))
        errors = checked.errors(lambda place, name: named[place][0].get(name), MAX_INVALID_ROWS)
        for place, (_, others) in enumerate(named):
            if others:
                is_row = others[0].field is not None
                errors[place] = [*errors.get(place, []), *others] if is_row else others
        return checked.columns, errors

    def _name_fields(self, row: Any) -> tuple[dict[str, Any], list[InvalidValue]]:
        """A row's values by feature, and an error for each field that is no feature."""
        names = self.use_case.feature_names
        if not isinstance(row, Mapping) or len(row) > len(names) + MAX_EXTRA:
            return {}, [InvalidValue(None, f"a JSON object with the fields {', '.join(names)}", describe(row))]
        fields = {name: row[name] for name in names if name in row}
        errors: list[InvalidValue] = []
        for name, value in row.items():
            if name in fields:
                continue
            feature = self._by_plain_name.get(plain_name(name))
            if feature is None or feature in fields:
                # Each takes a tenth of a millisecond, and the first ones show what is wrong.
                near = get_close_matches(cut(name), names, n=1) if len(errors) < MOST_GUESSES else []
                expected = "no field of this name" + (f" (did you mean {near[0]}?)" if near else "")
                errors.append(InvalidValue(cut(name), expected, describe(value)))
            else:
                fields[feature] = value
        return fields, errors

    def _check_numbers(self, number: Number, column: Any) -> tuple[Floats, Mask]:
        if not isinstance(column, list):
            from pyarrow import ArrowInvalid, float64

            # Arrow accepts fewer spellings than `as_number` and gives the same numbers in a hundredth of the time.
            with suppress(ArrowInvalid):
                values: Floats = column.cast(float64()).to_numpy(zero_copy_only=False)
                bad = _out_of_bounds(number, values)
                if not bad.any():
                    return values, bad

        def judge(text: str | None) -> float | None:
            if number.optional and (text is None or text.strip().casefold() in self._missing):
                return np.nan
            value = as_number(text or "")
            return None if _out_of_bounds(number, value) else value

        return judge_spellings(column, judge, np.nan, np.float64)


def invalid_value(column: Feature | Target, value: Any) -> InvalidValue:
    """The error for a value that was refused."""
    return InvalidValue(column.name, column.describe_expected(), describe(value))


def judge_spellings(column: Any, judge: Callable[[str | None], Any], refused: Any, dtype: Any) -> tuple[Any, Mask]:
    """The values of a text column, and a mask of the invalid ones. Each different text of an array is validated once.

    Args:
        column: an Arrow array of text, or a list of a few texts.
        judge: returns the value of a text; None if the text is invalid.
        refused: the value to put in the place of an invalid one.
    """
    if isinstance(column, list):
        texts, places = column, slice(None)
    else:
        from pyarrow import ChunkedArray

        spelled = (column.combine_chunks() if isinstance(column, ChunkedArray) else column).dictionary_encode()
        texts = [*spelled.dictionary.to_pylist(), None]
        places = spelled.indices.fill_null(len(texts) - 1).to_numpy(zero_copy_only=False)
    found = [judge(text) for text in texts]
    values = np.array([refused if value is None else value for value in found], dtype)
    bad = np.array([value is None for value in found], np.bool_)
    return values[places], bad[places]


def describe(value: Any) -> str:
    """A received value for a message: as JSON and cut short; in words if it is no single value."""
    match value:
        case None:
            return "nothing"
        case Mapping():
            return f"an object with {len(value)} fields"
        case list() | tuple():
            return f"a list of {len(value)} items"
        case bytes():
            return f"{len(value)} bytes"
        case str() if not value.strip():
            return "nothing"
        case str() if len(value) <= MAX_SHOWN and not np.isnan(as_number(value)):
            # A CSV has no other way to write the number.
            return value.strip()
        case str():
            return json.dumps(cut(value), ensure_ascii=False)
        case _:
            return cut(json.dumps(value))


def without_values(messages: str) -> str:
    """Messages of invalid values, joined by "; ", without what was received: what was expected stays."""
    return _GOT.sub(", got a value that is not shown", messages)


def _out_of_bounds(number: Number, values: Any) -> Any:
    """A mask of the invalid numbers; a missing one (NaN) is invalid."""
    within = (values >= number.minimum) & (values <= number.maximum)
    return np.logical_not(within & (values == np.floor(values)) if number.integer else within)


def _text_of(value: Any) -> str | None:
    """The text of a value, for validation."""
    match value:
        case None:
            return None
        case str():
            # Half a surrogate pair, which JSON can carry and UTF-8 cannot, is written as an escape.
            return value.encode("utf-8", "backslashreplace").decode()
        case int() | float():
            return str(value)
    return describe(value)
