"""A table with a header, in one batch: a file, an installed package, what a function makes, an object of the lake."""

import csv
import hashlib
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from dosel.errors import SourceError
from dosel.sources.base import Batch
from dosel.usecases import GeneratedRows, PackageRows, UseCase

STREAM = "table"


class Table:
    """A source of one batch. Its epoch is the digest of what was read, so that other rows are another batch.

    Args:
        place: where the table is, for the record and for errors.
        read: gives the whole table as CSV.
    """

    def __init__(self, use_case: UseCase, place: str, read: Callable[[], bytes]) -> None:
        self._use_case = use_case
        self._place = place
        self._read = read
        self._given = False

    def next_batch(self) -> Batch | None:
        if self._given:
            return None
        content = self._read()
        rows = rows_of(self._use_case, content, self._place)
        self._given = True
        return Batch(self._place[-255:], STREAM, hashlib.sha256(content).hexdigest(), 1, rows)

    def left_out(self) -> list[str]:
        """The table's columns that the use case does not declare, which are not stored."""
        header = _lines(self._read(), self._place)[0]
        places = _places(self._use_case, header, self._place)
        return [name for i, name in enumerate(header) if i not in places]


def file_table(use_case: UseCase, path: Path) -> Table:
    """The CSV at `path`."""
    return Table(use_case, str(path), lambda: _content(path, str(path)))


def package_table(use_case: UseCase, declared: PackageRows) -> Table:
    """The CSV that an installed package holds."""
    place = f"package {declared.package}: {declared.path}"
    return Table(use_case, place, lambda: _content(files(declared.package) / declared.path, place))


def generated_table(use_case: UseCase, declared: GeneratedRows) -> Table:
    """Rows that a function makes."""
    return Table(use_case, declared.said, lambda: as_csv(declared.make()))


def as_csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Mappings by column, as the bytes of a CSV; None is nothing."""
    listed = list(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(listed[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(listed)
    return text.getvalue().encode()


def rows_of(use_case: UseCase, content: bytes, place: str) -> Sequence[Sequence[str]]:
    """The declared columns of a CSV, in declared order, as text; other columns are left out.

    A line of another width than the header's is kept as it is, for the checks to refuse.

    Raises:
        SourceError: it is no CSV in UTF-8, or lacks a column.
    """
    header, *lines = _lines(content, place)
    places = _places(use_case, header, place)
    return [[line[i] for i in places] if len(line) == len(header) else line for line in lines if line]


def _lines(content: bytes, place: str) -> list[list[str]]:
    try:
        read = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{place} is no CSV in UTF-8: {error}") from error
    return read or [[]]


def _places(use_case: UseCase, header: Sequence[str], place: str) -> list[int]:
    """Where each declared column stands, by its name or another that is declared for it."""
    named = [_plain(name) for name in header]
    places = []
    for column in (*use_case.features, use_case.target):
        known = {_plain(name) for name in (column.name, *column.aliases)}
        found = [i for i, name in enumerate(named) if name in known]
        if len(found) != 1:
            what = "no column" if not found else f"{len(found)} columns"
            names = ", ".join((column.name, *column.aliases))
            raise SourceError(f"{place} has {what} {names}; its header: {', '.join(header)[:300]}")
        places += found
    return places


def _plain(name: str) -> str:
    """A column's name without regard to case and to how words are set apart."""
    return re.sub(r"[\W_]+", "_", name.strip()).casefold()


def _content(file: Any, place: str) -> bytes:
    try:
        content: bytes = file.read_bytes()
    except OSError as error:
        raise SourceError(f"{place} cannot be read: {error}") from error
    return content
