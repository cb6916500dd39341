"""The proposal for one column: its name, and a feature or the reason why there is none."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

from dosel.cli.drafting.profile import Column, Profile
from dosel.rows.shortened import cut
from dosel.usecases import Category, Choice, Feature, Number, plain_name
from dosel.usecases.check import NAME_LENGTH, VALUE_LENGTH
from dosel.usecases.declaration import RESERVED_COLUMNS

MOST_CHOICES = 60

RARE = 10
"""Fewest rows from which a model learns a class."""

SMALLEST, LARGEST = 1e-300, 1e300
"""Ranges of numbers whose bounds can be rounded: a float ends at 1.8e308."""

UNITS = ("mm", "cm", "km", "m", "kg", "mg", "g", "ml", "l", "h", "s", "ms", "usd", "eur", "percent")

_IDENTIFIER = re.compile(r"(.*_)?(id|uuid|guid|index|row|rownames|key|serial)|unnamed(_\d+)?|")


def identifier(text: str) -> str:
    """A name of small letters, digits and _ for a use case."""
    name = _plain_letters(text).lower()
    return (name if name[:1].isalpha() else f"u_{name}")[:NAME_LENGTH].rstrip("_")


def _plain_letters(text: str) -> str:
    """A text with letters, digits and _ only."""
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")


def missing_of(profile: Profile) -> tuple[str, ...]:
    """The marks that the file uses: known ones, and words in columns of numbers."""
    marks = {mark for column in profile.columns for mark in column.marks}
    marks |= {word for column in profile.columns if column.is_numeric for word in column.words}
    choices = {value.casefold() for column in profile.columns if not column.is_numeric for value in column.values}
    return tuple(sorted(mark for mark in marks if mark.casefold() not in choices))


def lacking_of(column: Column) -> int:
    return column.missing + (column.words.total() if column.is_numeric else 0)


def reason_of(column: Column) -> str:
    """Why a column is no feature; empty if it is one."""
    distinct, present = len(column.values), max(column.present, 1)
    is_unique = not column.missing and (column.is_full or distinct == present) and present >= RARE
    is_text = not column.is_numeric
    reasons = {
        "it is empty": not column.present,
        f"it is always {cut(next(iter(column.values), ''))!r}": distinct == 1 and not column.is_full,
        "it is a date: declare a number made of it, such as the years since then": column.dates >= 0.95 * present,
        "it is an identifier: each row has a different value": is_unique
        and bool(_IDENTIFIER.fullmatch(plain_name(column.name))),
        "it is a row number": is_unique and column.ascending and column.integers == present,
        "it is free text: declare numbers or categories made of it": is_text
        and (column.length > 40 * present or any(len(value) > VALUE_LENGTH for value in column.values)),
        "it is an identifier or a name: nearly every row has a different value": is_text
        and (is_unique or distinct > 0.5 * present > RARE),
        f"it has {distinct:,} different values: group them, or declare the common ones": is_text
        and distinct > MOST_CHOICES,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def names_of(profile: Profile) -> list[str]:
    """A name that each column can have in the tables."""
    taken: set[str] = set(RESERVED_COLUMNS)
    names = []
    for place, column in enumerate(profile.columns):
        base = _plain_letters(column.name)[:58]
        base = base if base[:1].isalpha() else f"column_{base or place + 1}"
        name = next(n for n in (base, *(f"{base}_{i}" for i in range(2, 1000))) if n.casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)
    return names


def aliases_of(name: str, column: Column) -> tuple[str, ...]:
    return () if plain_name(name) == plain_name(column.name) else (column.name,)


def title_of(name: str) -> str:
    """A column's name as words."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name).split()
    return " ".join(words[:1] + [word if word.isupper() else word.lower() for word in words[1:]]).capitalize()


def feature_of(column: Column, name: str) -> Feature:
    unit = next((unit for unit in UNITS if column.is_numeric and name.lower().endswith(f"_{unit}")), "")
    title = title_of(name[: -len(unit)] if unit else name)
    aliases, optional = aliases_of(name, column), lacking_of(column) > 0
    text = f"{title}, as in the column {column.name}."
    if column.is_numeric:
        # A larger float is always a whole number.
        integer = column.integers == column.numbers and max(-column.minimum, column.maximum) < 2**53
        low, high = bounds(column.minimum, column.maximum, integer)
        return Number(name, title, unit, low, high, low, text, integer, optional=optional, aliases=aliases)
    choices = tuple(choices_of(column))
    return Category(name, title, choices, choices[0].value, text, optional, aliases)


def bounds(low: float, high: float, integer: bool) -> tuple[float, float]:
    """Bounds with a quarter of the range on either side, rounded outward; what is never negative stays so."""
    if integer and (low, high) == (0, 1):
        return 0, 1
    span = high - low or abs(high) or 1.0
    if not SMALLEST < span < LARGEST or max(-low, high) > LARGEST:
        # A float cannot hold what lies around them.
        return low, high
    step = 10.0 ** (math.floor(math.log10(span)) - 1)
    step = max(1.0, step) if integer else step
    lower, upper = math.floor((low - span / 4) / step) * step, math.ceil((high + span / 4) / step) * step
    if low >= 0:
        lower = max(0.0, lower)
    return (int(lower), int(upper)) if integer else (tidy(lower), tidy(upper))


def tidy(value: float) -> float:
    return float(f"{value:.6g}")


def choices_of(column: Column) -> Iterator[Choice]:
    """A choice for each value, with its other spellings.

    Values that differ in case are one choice, and a single letter (f) is an alias of the only value that begins with it
    (female).
    """
    spelled: dict[str, Counter[str]] = {}
    for value, count in column.values.items():
        spelled.setdefault(value.casefold(), Counter())[value] = count
    short = {
        letter: [long for long in spelled if len(long) > 1 and long.startswith(letter)]
        for letter in spelled
        if len(letter) == 1 and letter.isalpha()
    }
    aliases = {longs[0]: letter for letter, longs in short.items() if len(longs) == 1}
    for folded, counts in sorted(spelled.items()):
        if folded in aliases.values():
            continue
        value = counts.most_common(1)[0][0]
        yield Choice(value, value, (aliases[folded],) if folded in aliases else ())
