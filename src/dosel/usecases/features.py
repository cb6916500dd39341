"""The columns a use case declares: numbers, categories and the target. Standard library only."""

import math
import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

Scaling = Literal["standard", "minmax"]

# Linear in the text's length: were the point optional within one group, a long number before a letter would take hours.
_NUMBER = re.compile(r"\s*+[+-]?(\d++(\.\d*+)?|\.\d++)(e[+-]?\d++)?\s*+", re.ASCII | re.IGNORECASE)

LONGEST_NUMBER = 1_000
"""Characters of the longest text that is read as a number: no number of 64 bits needs as many."""


def as_number(text: str) -> float:
    """The value a text spells; NaN for what is no number, infinities and over-long texts included."""
    if len(text) > LONGEST_NUMBER:
        text = text.strip()
    value = float(text) if len(text) <= LONGEST_NUMBER and _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else math.nan


def plain_name(name: str) -> str:
    """A column's name without regard to case and to how its words are separated."""
    return re.sub(r"[\W_]+", "_", name.strip()).casefold()


@dataclass(frozen=True)
class Number:
    """A numeric feature: `minimum` and `maximum` are its inclusive bounds, in `unit`.

    A row may lack an `optional` feature. `aliases` are other names of the column in sources. Raise `revision` when the
    column gets another meaning while its name, unit and bounds stay: older models are then not loaded.
    """

    name: str
    title: str
    unit: str
    minimum: float
    maximum: float
    example: float
    help: str
    integer: bool = True
    scaling: Scaling = "standard"
    optional: bool = False
    aliases: tuple[str, ...] = ()
    revision: int = 1

    def describe_expected(self) -> str:
        """Describe the valid values, for messages and documentation."""
        kind = "whole number" if self.integer else "number"
        bounds = f"a {kind} from {self.minimum:g} to {self.maximum:g}" + (f" {self.unit}" if self.unit else "")
        return bounds + (" or nothing" if self.optional else "")

    @property
    def typed_example(self) -> float:
        """The example, as int if the number is an integer."""
        return int(self.example) if self.integer else float(self.example)


@dataclass(frozen=True)
class Choice:
    """One value of a category, as stored; `aliases` are its other spellings."""

    value: str
    title: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Category:
    """A feature with a closed list of values, which match without regard to case and surrounding blanks.

    `optional`, `aliases` and `revision` as in `Number`.
    """

    name: str
    title: str
    choices: tuple[Choice, ...]
    example: str
    help: str
    optional: bool = False
    aliases: tuple[str, ...] = ()
    revision: int = 1

    @cached_property
    def spellings(self) -> Mapping[str, str]:
        """The value of each accepted spelling, case-folded."""
        return {
            spelling.casefold(): choice.value for choice in self.choices for spelling in (choice.value, *choice.aliases)
        }

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(choice.value for choice in self.choices)

    def describe_expected(self) -> str:
        """Describe the valid values, for messages and documentation."""
        return "one of " + ", ".join(self.values) + (" or nothing" if self.optional else "")

    @property
    def typed_example(self) -> str:
        """The example."""
        return self.example


Feature = Number | Category


@dataclass(frozen=True)
class Bins:
    """A number of the source that is divided into classes: each value of `at` is the largest of the class
    below it."""

    minimum: float
    maximum: float
    at: tuple[float, ...]


@dataclass(frozen=True)
class Target:
    """The column to predict: its integer codes and their labels.

    Attributes:
        codings: offsets from sources' class numbers to the codes, by name; `DATA_API_CLASSES` selects one.
        spellings: codes by the words that sources write, without regard to case.
        bins: for a source that gives a number: the classes, in the order of `labels`, are its ranges.
        aliases, revision: as in `Number`.
    """

    name: str
    title: str
    labels: Mapping[int, str]
    codings: Mapping[str, int] = field(default_factory=dict)
    spellings: Mapping[str, int] = field(default_factory=dict)
    bins: Bins | None = None
    aliases: tuple[str, ...] = ()
    revision: int = 1

    def describe_expected(self) -> str:
        """Describe the valid values, for messages and documentation."""
        if self.bins:
            return f"a number from {self.bins.minimum:g} to {self.bins.maximum:g}"
        return "one of " + ", ".join(f"{code} ({label})" for code, label in self.labels.items())

    def code(self, text: str, coding: str) -> int | None:
        """The class code of a source's text, or None."""
        value = as_number(text)
        if self.bins:
            within = self.bins.minimum <= value <= self.bins.maximum
            return list(self.labels)[bisect_left(self.bins.at, value)] if within else None
        if math.isnan(value):
            return self._words.get(text.strip().casefold())
        value += self.codings.get(coding, 0)
        return int(value) if value in self.labels else None

    @cached_property
    def _words(self) -> Mapping[str, int]:
        return {text.casefold(): code for text, code in self.spellings.items()}
