"""The one validator of feature values: ingest, the API and its batches, the page and declarations all use it.

A value is judged by its text, so that 17, "17" and a CSV's 17 get the same verdict and the same message. What is
missing (None, blank, or one of the use case's `missing` marks) is acceptable for an optional feature only.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dosel.errors import DoselError
from dosel.rows.columns import UNKNOWN, Codes, Columns, Floats
from dosel.usecases import Category, Feature, Number, Target, UseCase, as_number, plain_name

MAX_SHOWN = 60
"""Characters of a received value that a message repeats."""

MAX_EXTRA = 100
"""With more unknown fields than this, a mapping is refused without naming each of them."""

MAX_INVALID_ROWS = 100
"""Invalid rows that are listed; reading stops there."""

MESSAGES = 3
"""Errors whose messages `InvalidRows` repeats as its text."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class InvalidValue:
    """One value that is not acceptable.

    Attributes:
        field: the feature's name, or what was given instead; None for the row or the body as a whole.
        expected, got: in words.
        row: counted from 1; None outside of a batch.
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


class InvalidRows(DoselError):
    """Rows that are not acceptable; `errors` in the order of the rows, then of the features."""

    def __init__(self, errors: Sequence[InvalidValue]) -> None:
        super().__init__("; ".join(error.message for error in errors[:MESSAGES]))
        self.errors = errors


class UnreadableRows(DoselError):
    """Bytes that are not in the format they are said to be in; the message continues "the body is"."""


class CategoryCodes(dict[str | None, int]):
    """The code of each text that a category accepts, without regard to case and surrounding blanks.

    Only declared spellings are stored, so that it cannot grow.

    Raises:
        KeyError: the text means none of the values.
    """

    def __init__(self, category: Category, missing: frozenset[str]) -> None:
        codes: dict[str | None, int] = {value: code for code, value in enumerate(category.values)}
        self._folded = {folded: codes[value] for folded, value in category.spellings.items()}
        if category.optional:
            self._folded |= dict.fromkeys(missing, UNKNOWN)
            codes[None] = UNKNOWN
        super().__init__(codes)

    def __missing__(self, text: str | None) -> int:
        if text is None:
            raise KeyError(text)
        return self._folded[text.strip().casefold()]


@dataclass(frozen=True)
class Verdict:
    """What the validator made of rows.

    Attributes:
        columns: the rows; a refused value is NaN or `UNKNOWN`.
        refused: for each feature with refused values, a mask of shape (rows,).
    """

    columns: Columns
    refused: Mapping[str, Mask]


class Validator:
    """Judges rows by a use case's declaration."""

    def __init__(self, use_case: UseCase) -> None:
        self.use_case = use_case
        # A blank is how a CSV writes that there is no value.
        self._missing = frozenset({"", *(mark.strip().casefold() for mark in use_case.missing)})
        self.codes = {category.name: CategoryCodes(category, self._missing) for category in use_case.categories}
        self._by_plain_name = {plain_name(name): f.name for f in use_case.features for name in (*f.aliases, f.name)}

    def check(self, table: Any) -> Verdict:
        """Judge rows of text; each spelling is judged once, however many rows have it.

        Args:
            table: an Arrow table or batch with a text column for each feature; null is a missing value.
        """
        refused: dict[str, Mask] = {}
        numbers: list[Floats] = []
        codes: list[Codes] = []
        for feature in self.use_case.features:
            column = table.column(feature.name)
            if isinstance(feature, Number):
                values, bad = self._check_numbers(feature, column)
                numbers.append(values)
            else:
                places, bad = self._check_category(feature, column)
                codes.append(places)
            if bad.any():
                refused[feature.name] = bad
        return Verdict(Columns.stack(numbers, codes, table.num_rows), refused)

    def check_rows(self, rows: Sequence[Any], first: int | None = None) -> tuple[Columns, list[InvalidValue]]:
        """Judge mappings by field, with values of any type.

        A field's name is matched as a CSV's header is; a field that means no feature is refused.

        Args:
            first: the number of the first row, for messages; None leaves rows unnumbered.

        Returns:
            The rows, which mean nothing if there are errors, and the errors of the first `MAX_INVALID_ROWS` invalid.
        """
        named = [self._name_fields(row) for row in rows]
        texts = {
            name: pa.array([_text_of(fields.get(name)) for fields, _ in named], pa.string())
            for name in self.use_case.feature_names
        }
        verdict = self.check(pa.table(texts))
        invalid: dict[int, list[InvalidValue]] = {}
        for place, feature in first_refused(verdict, self.use_case):
            invalid.setdefault(place, []).append(invalid_value(feature, named[place][0].get(feature.name)))
        for place, (_, errors) in enumerate(named):
            if errors:
                whole_row = errors[0].field is None
                invalid[place] = errors if whole_row else [*invalid.get(place, []), *errors]
        number = {place: None if first is None else first + place for place in invalid}
        listed = [
            InvalidValue(error.field, error.expected, error.got, number[place])
            for place in sorted(invalid)[:MAX_INVALID_ROWS]
            for error in invalid[place]
        ]
        return verdict.columns, listed

    def is_missing(self, text: str | None) -> bool:
        """Whether the text says that there is no value."""
        return text is None or text.strip().casefold() in self._missing

    def _name_fields(self, row: Any) -> tuple[dict[str, Any], list[InvalidValue]]:
        """A row's values by feature, and an error for each field that means no feature."""
        names = self.use_case.feature_names
        if not isinstance(row, Mapping) or len(row) > len(names) + MAX_EXTRA:
            return {}, [InvalidValue(None, f"a JSON object with the fields {', '.join(names)}", describe(row))]
        fields = {name: row[name] for name in names if name in row}
        errors = []
        for name, value in row.items():
            if name in fields:
                continue
            feature = self._by_plain_name.get(plain_name(name))
            if feature is None or feature in fields:
                near = get_close_matches(cut(name), names, n=1)
                expected = "no field of this name" + (f" (did you mean {near[0]}?)" if near else "")
                errors.append(InvalidValue(cut(name), expected, describe(value)))
            else:
                fields[feature] = value
        return fields, errors

    def _check_numbers(self, number: Number, column: Any) -> tuple[Floats, Mask]:
        try:
            # Arrow reads a part of what `as_number` reads, and reads it alike, but in a hundredth of the time.
            values: Floats = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
            bad = _out_of_bounds(number, values)
            if not bad.any():
                return values, bad
        except pa.ArrowInvalid:
            pass

        def judge(texts: Sequence[str | None]) -> tuple[Floats, Mask]:
            found = np.array([np.nan if text is None else as_number(text) for text in texts], np.float64)
            refused = _out_of_bounds(number, found)
            if number.optional:
                missing = np.array([self.is_missing(text) for text in texts], np.bool_)
                refused &= ~missing
                found[missing] = np.nan
            return found, refused

        return judge_spellings(column, judge)

    def _check_category(self, category: Category, column: Any) -> tuple[Codes, Mask]:
        known = self.codes[category.name]

        def judge(texts: Sequence[str | None]) -> tuple[Codes, Mask]:
            found = [_code(known, text) for text in texts]
            refused = np.array([code is None for code in found], np.bool_)
            return np.array([UNKNOWN if code is None else code for code in found], np.intp), refused

        return judge_spellings(column, judge)


def first_refused(verdict: Verdict, use_case: UseCase) -> Iterator[tuple[int, Feature]]:
    """Each refused value's row and feature, feature by feature, of the first `MAX_INVALID_ROWS` rows of each."""
    for feature in use_case.features:
        if feature.name in verdict.refused:
            for place in np.flatnonzero(verdict.refused[feature.name])[:MAX_INVALID_ROWS].tolist():
                yield place, feature


def invalid_value(column: Feature | Target, value: Any, row: int | None = None) -> InvalidValue:
    """The error for a value that was refused."""
    return InvalidValue(column.name, column.describe_expected(), describe(value), row)


def judge_spellings(column: Any, judge: Callable[[Sequence[str | None]], tuple[Any, Mask]]) -> tuple[Any, Mask]:
    """What `judge` says of each value of a text column, having been asked once for each spelling."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    spelled = column.dictionary_encode()
    values, bad = judge([*spelled.dictionary.to_pylist(), None])
    places = spelled.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
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


def cut(text: str) -> str:
    """The text, or its first `MAX_SHOWN` characters."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _out_of_bounds(number: Number, values: Floats) -> Mask:
    bad: Mask = ~((values >= number.minimum) & (values <= number.maximum))
    if number.integer:
        bad |= values != np.floor(values)
    return bad


def _code(known: CategoryCodes, text: str | None) -> int | None:
    try:
        return known[text]
    except KeyError:
        return None


def _text_of(value: Any) -> str | None:
    """The text by which a value is judged."""
    match value:
        case None:
            return None
        case str():
            # Half a surrogate pair, which JSON can carry and UTF-8 cannot, is written as an escape.
            return value.encode("utf-8", "backslashreplace").decode()
        case int() | float():
            return str(value)
    return describe(value)
