"""The columns a use case declares: numbers, categories and the target. Standard library only."""

import math
import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

Scaling = Literal["standard", "minmax"]

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)


def as_number(text: str) -> float:
    """The value a text spells; NaN for what is no number, infinities included."""
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else math.nan


@dataclass(frozen=True)
class Number:
    """A numeric feature: `minimum` and `maximum` are the inclusive bounds of an acceptable value, in `unit`.

    `optional` lets rows do without it; `aliases` are other names that sources have for the column.
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

    def describe_expected(self) -> str:
        """Describe the acceptable values, for messages and documentation."""
        kind = "whole number" if self.integer else "number"
        bounds = f"a {kind} from {self.minimum:g} to {self.maximum:g}" + (f" {self.unit}" if self.unit else "")
        return bounds + (" or nothing" if self.optional else "")

    @property
    def typed_example(self) -> float:
        """The example, typed as a client would write it."""
        return int(self.example) if self.integer else float(self.example)


@dataclass(frozen=True)
class Choice:
    """One value of a category, as stored; `aliases` are other spellings that mean it."""

    value: str
    title: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Category:
    """A feature with a closed list of values, matched without regard to case or surrounding blanks.

    `optional` and `aliases` as in `Number`.
    """

    name: str
    title: str
    choices: tuple[Choice, ...]
    example: str
    help: str
    optional: bool = False
    aliases: tuple[str, ...] = ()

    @cached_property
    def spellings(self) -> Mapping[str, str]:
        """Every accepted spelling, case folded, with the value it means."""
        return {
            spelling.casefold(): choice.value for choice in self.choices for spelling in (choice.value, *choice.aliases)
        }

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(choice.value for choice in self.choices)

    def describe_expected(self) -> str:
        """Describe the acceptable values, for messages and documentation."""
        return "one of " + ", ".join(self.values) + (" or nothing" if self.optional else "")

    @property
    def typed_example(self) -> str:
        """The example."""
        return self.example


Feature = Number | Category


@dataclass(frozen=True)
class Bins:
    """A number of the source that is told as classes: each cut is the largest value of the class below it."""

    minimum: float
    maximum: float
    at: tuple[float, ...]


@dataclass(frozen=True)
class Target:
    """The column to predict: its integer codes, and what each is called.

    `codings` names the ways sources number the classes, each with what to add to a source's code to get
    ours; which one a source uses is a setting (`DATA_API_CLASSES`), never guessed from what it sends. `spellings` are
    words that sources write instead, without regard to case. With `bins`, it gives a number, and the classes,
    in the order of `labels`, are its ranges. `aliases` as in `Number`.
    """

    name: str
    title: str
    labels: Mapping[int, str]
    codings: Mapping[str, int] = field(default_factory=dict)
    spellings: Mapping[str, int] = field(default_factory=dict)
    bins: Bins | None = None
    aliases: tuple[str, ...] = ()

    def describe_expected(self) -> str:
        """Describe the acceptable values, for messages and documentation."""
        if self.bins:
            return f"a number from {self.bins.minimum:g} to {self.bins.maximum:g}"
        return "one of " + ", ".join(f"{code} ({label})" for code, label in self.labels.items())

    def code(self, text: str, coding: str) -> int | None:
        """The class that a source's text means, or None."""
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
