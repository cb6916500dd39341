"""Rows read from JSON in well under a microsecond each: the declaration's checks, compiled by msgspec.

What is accepted here, the pydantic model of `app.schemas.rows` accepts too, and means the same; a test holds the two to
that. What is not accepted is only known to be so: `app.schemas.rows` and `app.http.validation_errors` say why.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from dosel.errors import DoselError
from dosel.usecases import Category, Number, UseCase

REFUSED = (msgspec.DecodeError, UnicodeDecodeError, KeyError)
"""What reading raises for a body that is not acceptable."""


class UnreadableBody(DoselError):
    """The body is not in the format it says it is in; the message says where it breaks."""


@dataclass(frozen=True, slots=True)
class Read:
    """Acceptable rows: numbers in declared order, and each category's place in its declared values."""

    numbers: Sequence[Sequence[float]]
    codes: Sequence[Sequence[int]]


class Spellings(dict[str | None, int]):
    """The place of each spelling of a category among its values; a new one is looked into once.

    Raises:
        KeyError: the text means none of the values.
    """

    MOST = 10_000
    """Spellings that are remembered; blanks and cases make endlessly many."""

    def __init__(self, category: Category) -> None:
        self._category = category
        super().__init__({value: i for i, value in enumerate(category.values)})
        self._declared = dict(self)
        if category.optional:
            # A row without it, as JSON and as CSV write that.
            self |= {None: -1, "": -1}

    def __missing__(self, text: str | None) -> int:
        value = None if text is None else self._category.canonical(text)
        if value is None:
            raise KeyError(text)
        if len(self) < self.MOST:
            self[text] = self._declared[value]
        return self._declared[value]


class RowReader:
    """Reads rows of a use case from JSON."""

    def __init__(self, use_case: UseCase) -> None:
        # What may be left out has a default, so it comes after what may not; rows are read by name.
        ordered = sorted(use_case.features, key=lambda feature: feature.optional)
        fields = [_field(feature) for feature in ordered]
        self._all_given = not any(feature.optional for feature in use_case.features)
        # Rows hold no cycles, so they need not be looked through for garbage.
        row: Any = msgspec.defstruct("Row", fields, forbid_unknown_fields=True, gc=False)
        asked: Any = msgspec.defstruct("Asked", [("model", str | None, None)], bases=(row,), kw_only=True, gc=False)
        self._row = msgspec.json.Decoder(row)
        self._asked = msgspec.json.Decoder(asked)
        self._rows = msgspec.json.Decoder(list[row])
        self._numbers = _tuple_of([number.name for number in use_case.numbers])
        self._words = _tuple_of([category.name for category in use_case.categories])
        self._spellings = [Spellings(category) for category in use_case.categories]

    def one(self, body: bytes, may_name_model: bool) -> tuple[Sequence[float], Sequence[int], str | None]:
        """The numbers and codes of one row, and the model that is named beside it.

        Raises:
            REFUSED: this is no acceptable row.
        """
        row = (self._asked if may_name_model else self._row).decode(body)
        codes = [known[word] for known, word in zip(self._spellings, self._words(row), strict=True)]
        return self._known(self._numbers(row)), codes, row.model if may_name_model else None

    def many(self, body: bytes) -> Read:
        """A list of rows.

        Raises:
            REFUSED: not all of them are acceptable.
        """
        rows = self._rows.decode(body)
        columns = zip(*map(self._words, rows), strict=True)
        places = [list(map(known.__getitem__, column)) for known, column in zip(self._spellings, columns, strict=False)]
        return Read(
            [self._known(self._numbers(row)) for row in rows],
            list(zip(*places, strict=True)) if places else [()] * len(rows),
        )

    def _known(self, numbers: Sequence[float]) -> Sequence[float]:
        """Numbers, with NaN where there is none."""
        return numbers if self._all_given else tuple(math.nan if value is None else value for value in numbers)


def _field(feature: Number | Category) -> Any:
    kind = _type(feature)
    return (feature.name, kind | None, None) if feature.optional else (feature.name, kind)


def _type(feature: Number | Category) -> Any:
    if isinstance(feature, Category):
        return str
    whole = 1.0 if feature.integer else None
    return Annotated[float, msgspec.Meta(ge=feature.minimum, le=feature.maximum, multiple_of=whole)]


def _tuple_of(names: Sequence[str]) -> Any:
    """A function that takes these attributes; `attrgetter` alone gives no tuple for a single one."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda row: tuple(getattr(row, name) for name in names)
