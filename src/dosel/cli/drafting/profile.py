"""What the columns of a CSV hold, found in one pass and in memory that does not grow with the rows."""

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from dosel.errors import SourceError
from dosel.rows import encodings
from dosel.usecases import as_number

MOST_ROWS = 200_000
"""Rows that are read; more would hardly change the proposal."""

MOST_VALUES = 5_000
"""Different values that are counted of each column."""

MARKS = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "."})
"""Texts that sources write where there is no value."""

DELIMITERS = (",", ";", "\t", "|")

_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ].*)?|\d\d?[./-]\d\d?[./-]\d{2}(\d{2})?( .*)?|\d{4}/\d\d?/\d\d?( .*)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


@dataclass
class Column:
    """What one column holds. `values` counts different texts, up to `MOST_VALUES` of them."""

    name: str
    values: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    numbers: int = 0
    integers: int = 0
    dates: int = 0
    length: int = 0
    minimum: float = float("inf")
    maximum: float = float("-inf")
    ascending: bool = True
    is_full: bool = False

    @property
    def present(self) -> int:
        """Rows with a value."""
        return self.rows - self.marks.total()

    @property
    def missing(self) -> int:
        """Rows without a value."""
        return self.marks.total()

    @property
    def is_numeric(self) -> bool:
        """Whether at most 5 % of the values are words, few of them distinct; such words count as missing marks."""
        words = self.present - self.numbers
        return self.numbers > 0 and words <= self.present / 20 and len(self.words) <= 3

    def see(self, text: str) -> None:
        """Count the value of one row."""
        self.rows += 1
        text = text.strip()
        if text.casefold() in MARKS:
            self.marks[text] += 1
            return
        if text in self.values or len(self.values) < MOST_VALUES:
            self.values[text] += 1
        else:
            self.is_full = True
        self.length += len(text)
        self.dates += bool(_DATE.fullmatch(text))
        number = as_number(text)
        if math.isnan(number):
            if len(self.words) < 5:
                self.words[text] += 1
            return
        self.numbers += 1
        self.integers += number == int(number)
        self.ascending &= number == self.maximum + 1 or self.numbers == 1
        self.minimum, self.maximum = min(self.minimum, number), max(self.maximum, number)


@dataclass(frozen=True)
class Profile:
    """A CSV's columns, in order, and how it is written. `is_whole` is false if reading stopped at `MOST_ROWS`."""

    path: Path
    encoding: str
    delimiter: str
    columns: tuple[Column, ...]
    rows: int
    is_whole: bool


def read(path: Path) -> Profile:
    """The profile of a CSV with a header.

    Raises:
        SourceError: it cannot be read, has no header or no rows.
    """
    try:
        encoding = encodings.guess(path)
        delimiter, names = _header(path, encoding)
        columns = [Column(name.strip()) for name in names]
        rows = 0
        for values in lines(path, encoding, delimiter):
            rows += 1
            for column, text in zip(columns, values, strict=False):
                column.see(text)
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from None
    if not rows:
        raise SourceError(f"{path} has a header and no rows; a proposal needs some hundred")
    return Profile(path, encoding, delimiter, tuple(columns), rows, rows < MOST_ROWS)


def lines(path: Path, encoding: str, delimiter: str) -> Iterator[list[str]]:
    """The rows after the header, at most `MOST_ROWS`, as text with decimal points; empty lines are left out."""
    with path.open(encoding=_marked(encoding), newline="") as opened:
        reader = (values for values in csv.reader(opened, delimiter=delimiter) if values)
        for values in islice(reader, 1, MOST_ROWS + 1):
            if delimiter == ";":
                yield [text.replace(",", ".") if _DECIMAL_COMMA.fullmatch(text.strip()) else text for text in values]
            else:
                yield values


def _header(path: Path, encoding: str) -> tuple[str, list[str]]:
    """The delimiter that finds most columns, and their names."""
    found: dict[str, list[str]] = {}
    for delimiter in DELIMITERS:
        with path.open(encoding=_marked(encoding), newline="") as opened:
            found[delimiter] = next((names for names in csv.reader(opened, delimiter=delimiter) if names), [])
    best = max(found, key=lambda delimiter: len(found[delimiter]))
    if len(found[best]) < 2:
        raise SourceError(f"{path} has no header with at least two columns")
    if best not in (",", ";"):
        written = {"\t": "tabs", "|": "|"}[best]
        raise SourceError(f"{path} is separated by {written}; dosel reads CSV separated by , or ;")
    return best, found[best]


def _marked(encoding: str) -> str:
    return "utf-8-sig" if encoding == encodings.UTF_8 else encoding
