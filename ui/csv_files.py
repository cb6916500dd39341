"""CSV files for the view of many rows: an uploaded one in UTF-8, its invalid rows, and its rows beside the answers."""

import csv
import io
from collections.abc import Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

import pyarrow as pa
from pyarrow import csv as arrow_csv

from dosel.rows import encodings
from dosel.rows.csv import BLOCK_BYTES, MAX_HEADER_BYTES, Header, read_header
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
    """The rows of a file with their answers: input columns, prediction, label and probabilities, as CSV on disk."""

    model: str
    version: int
    rows: int
    labels: dict[str, int]
    first: Any = field(repr=False)
    spool: Any = field(repr=False)
    stale: bool

    def content(self) -> bytes:
        return Path(self.spool.name).read_bytes()


SHOWN = 100
"""Rows of the answers that the page shows."""


def beside(upload: Upload, header: Header, answer: IO[bytes], model: str, version: int, stale: bool) -> Answers:
    """Write the answers beside the input columns.

    Args:
        answer: the API's answer, a CSV with a row for each row of the upload.
        stale: the API could not confirm the version.
    """
    with upload.path.open("rb") as opened:
        given = _read(opened, header.delimiter, list(header.names), header.size)
    answer.seek(0)
    names = next(csv.reader(io.StringIO(answer.readline().decode()), delimiter=header.delimiter))
    answered = _read(answer, header.delimiter, names, answer.tell())
    # The answer begins with the file's other columns, which are among the input columns, too.
    own = len(header.extra)
    columns = [*given.columns, *answered.columns[own:]]
    table = pa.table(columns, [*header.names, *names[own:]])
    out = NamedTemporaryFile(prefix="dosel-answers-")  # noqa: SIM115  it lives as long as the answers
    arrow_csv.write_csv(table, out, arrow_csv.WriteOptions(quoting_style="needed", delimiter=header.delimiter))
    out.flush()
    counts = {str(pair["values"]): int(pair["counts"]) for pair in answered.column(own + 1).value_counts().to_pylist()}
    return Answers(model, version, table.num_rows, counts, table.slice(0, SHOWN), out, stale)


def _read(opened: IO[bytes], delimiter: str, names: list[str], start: int) -> Any:
    """A table of text; its columns have their places for names, since a file's own may be equal."""
    places = [str(place) for place in range(len(names))]
    opened.seek(start)
    return arrow_csv.read_csv(
        opened,
        arrow_csv.ReadOptions(block_size=BLOCK_BYTES, column_names=places),
        arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        arrow_csv.ConvertOptions(column_types=dict.fromkeys(places, pa.string()), strings_can_be_null=False),
    )
