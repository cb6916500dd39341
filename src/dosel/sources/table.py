"""A CSV with a header as one batch: a file, a package's file, generated rows, or an object of the lake."""

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from dosel.errors import SourceError
from dosel.rows.csv import Header, read_texts
from dosel.rows.validation import InvalidRows, UnreadableRows
from dosel.sources.base import Batch
from dosel.usecases import GeneratedRows, PackageRows, UseCase

STREAM = "table"


class Table:
    """A source of one batch. Its epoch is the digest of the content, so that changed rows are a new batch.

    Args:
        place: the table's address, for the batch ledger and for errors.
        read: returns the whole table as CSV.
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
        _, rows = self._texts(content)
        self._given = True
        return Batch(self._place[-255:], STREAM, hashlib.sha256(content).hexdigest(), 1, rows)

    def left_out(self) -> list[str]:
        """The table's undeclared columns, which are not stored."""
        header, _ = self._texts(self._read())
        return [header.names[place] for place in header.extra]

    def _texts(self, content: bytes) -> tuple[Header, list[list[str]]]:
        try:
            return read_texts(self._use_case, content)
        except UnreadableRows as error:
            raise SourceError(f"{self._place} is {error}") from error
        except InvalidRows as error:
            raise SourceError(f"{self._place}: {error}") from error


def file_table(use_case: UseCase, path: Path, encoding: str = "utf-8") -> Table:
    """The CSV at `path`."""

    def read() -> bytes:
        content = _content(path, str(path))
        if encoding == "utf-8":
            return content
        try:
            return content.decode(encoding).encode()
        except (LookupError, UnicodeDecodeError) as error:
            raise SourceError(f"{path} cannot be read as {encoding}: {error}") from error

    return Table(use_case, str(path), read)


def package_table(use_case: UseCase, declared: PackageRows) -> Table:
    """The CSV in an installed package."""
    place = f"package {declared.package}: {declared.path}"
    return Table(use_case, place, lambda: _content(files(declared.package) / declared.path, place))


def generated_table(use_case: UseCase, declared: GeneratedRows) -> Table:
    """Generated rows."""
    return Table(use_case, declared.description, lambda: as_csv(declared.generate()))


def as_csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Mappings by column as a CSV; None becomes an empty field."""
    listed = list(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(listed[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(listed)
    return text.getvalue().encode()


def _content(file: Any, place: str) -> bytes:
    try:
        content: bytes = file.read_bytes()
    except OSError as error:
        raise SourceError(f"{place} cannot be read: {error}") from error
    return content
