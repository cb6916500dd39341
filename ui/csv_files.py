"""CSV files for the view of many rows: an uploaded one in UTF-8, its invalid rows, and its rows beside the answers."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from dosel.rows import encodings
from dosel.rows.answered import AnsweredRows
from dosel.rows.csv import MAX_HEADER_BYTES, Header, read_header
from dosel.rows.validation import UnreadableRows

PIECE_BYTES = 1 << 18


@dataclass(frozen=True)
class Column:
    """A declared column, with the names that a file may give it."""

    name: str
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class Upload:
    """An uploaded file in UTF-8, on disk as long as this object lives."""

    name: str
    size: int
    spool: Any = field(repr=False)

    @classmethod
    def of(cls, name: str, content: bytes) -> "Upload":
        """Convert a file that may be in UTF-16 or in Windows' extension of Latin-1.

        Raises:
            UnreadableRows: it is in another encoding, or no text.
        """
        with NamedTemporaryFile(prefix="dosel-upload-") as received:
            received.write(content)
            received.flush()
            spool = NamedTemporaryFile(prefix="dosel-utf-8-")  # noqa: SIM115  it lives as long as the upload
            try:
                encodings.write_utf_8(Path(received.name), encodings.guess(Path(received.name)), spool)
            except UnicodeError as error:
                raise UnreadableRows(f"{name} is not text in UTF-8, UTF-16 or Windows-1252: {error}") from None
        spool.flush()
        return cls(name, Path(spool.name).stat().st_size, spool)

    @property
    def path(self) -> Path:
        return Path(self.spool.name)

    def pieces(self) -> Iterator[bytes]:
        """The content, piece by piece."""
        with self.path.open("rb") as opened:
            while piece := opened.read(PIECE_BYTES):
                yield piece

    def header(self, columns: Iterable[Column]) -> Header:
        """
        Raises:
            DoselError: the file has no header with these columns.
        """
        with self.path.open("rb") as opened:
            return read_header(list(columns), opened.read(MAX_HEADER_BYTES))

    def rows(self, header: Header, numbers: Set[int]) -> dict[int, list[str]]:
        """The values of the rows with these numbers, from 1; empty lines are no rows."""
        found: dict[int, list[str]] = {}
        with self.path.open(encoding="utf-8-sig", newline="") as opened, suppress(csv.Error):
            reader, row = csv.reader(opened, delimiter=header.delimiter), -1
            for values in reader:
                row += bool(values)
                if values and row in numbers:
                    found[row] = values
                if len(found) == len(numbers):
                    break
        return found


@dataclass(frozen=True)
class Answers:
    """The rows of a file with their answers, as CSV on disk.

    Attributes:
        names: of the columns.
        first: the first rows, as text.
        labels: how many rows got each label.
        stale: the API could not confirm the version.
    """

    model: str
    version: int
    rows: int
    labels: dict[str, int]
    names: tuple[str, ...] = field(repr=False)
    first: list[list[str]] = field(repr=False)
    spool: Any = field(repr=False)
    stale: bool

    @classmethod
    def of(cls, answered: AnsweredRows, model: str, version: int, stale: bool) -> "Answers":
        """Keep the answers of a version."""
        labels, first = Counter[str](), list[list[str]]()

        def seen() -> Iterator[list[str]]:
            for row in answered.rows:
                labels[row[answered.own + 1]] += 1
                if len(first) < SHOWN:
                    first.append(row)
                yield row

        out = NamedTemporaryFile(prefix="dosel-answers-")  # noqa: SIM115  it lives as long as the answers
        replace(answered, rows=seen()).write_csv(out)
        out.flush()
        return cls(model, version, labels.total(), dict(labels), answered.names, first, out, stale)

    def content(self) -> bytes:
        return Path(self.spool.name).read_bytes()


SHOWN = 100
"""Rows of the answers that the page shows."""
