"""The answers to the rows of a CSV, beside the rows. Memory does not grow with their number."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from dosel.errors import ServiceError
from dosel.rows.csv import BLOCK_BYTES, Header

PARQUET_ROWS = 50_000
"""Rows of a row group."""


@dataclass(frozen=True)
class AnsweredRows:
    """The rows of a CSV with their answers, for one pass.

    Attributes:
        names: of the columns: the file's, prediction, label, and each class's probability.
        own: the number of the file's columns.
        delimiter: the file's.
        rows: as text.
    """

    names: tuple[str, ...]
    own: int
    delimiter: str
    rows: Iterator[list[str]] = field(repr=False)

    def write_csv(self, out: IO[bytes]) -> None:
        text = io.TextIOWrapper(out, "utf-8", newline="")
        writer = csv.writer(text, delimiter=self.delimiter, lineterminator="\n")
        writer.writerow(self.names)
        writer.writerows(self.rows)
        text.detach()

    def write_parquet(self, out: IO[bytes]) -> None:
        """Write the answers as numbers, but for the label, and the file's columns as the text that they are."""
        import pyarrow as pa
        from pyarrow import parquet

        kinds = [pa.string()] * self.own + [pa.int64(), pa.string()]
        kinds += [pa.float64()] * (len(self.names) - len(kinds))
        schema = pa.schema(list(zip(self.names, kinds, strict=True)))
        with parquet.ParquetWriter(out, schema) as writer:
            while some := list(islice(self.rows, PARQUET_ROWS)):
                columns = zip(zip(*some, strict=True), kinds, strict=True)
                arrays = [pa.array(values, pa.string()).cast(kind) for values, kind in columns]
                writer.write_batch(pa.record_batch(arrays, schema))


def beside(file: Path, header: Header, answer: IO[bytes]) -> AnsweredRows:
    """Put the answers beside the rows.

    Args:
        file: a CSV in UTF-8.
        header: the CSV's.
        answer: the API's answer to it, a CSV. It has to stay open until the rows are read.

    Raises:
        ServiceError: the answer is not one for these rows; also while they are read.
    """
    answer.seek(0)
    # The longest value that the API reads.
    csv.field_size_limit(BLOCK_BYTES)
    answers = csv.reader(io.TextIOWrapper(answer, "utf-8", newline=""), delimiter=header.delimiter)
    names = next(answers, [])
    # The answer begins with the file's other columns, which are among the file's, too.
    first = len(header.extra)
    if names[first : first + 2] != ["prediction", "label"]:
        raise ServiceError("the answer has no columns prediction and label; is it the prediction API?")
    rows = _joined(file, header, (row[first:] for row in answers))
    return AnsweredRows((*header.names, *names[first:]), len(header.names), header.delimiter, rows)


def _joined(file: Path, header: Header, answers: Iterator[Sequence[str]]) -> Iterator[list[str]]:
    with file.open("rb") as opened:
        opened.seek(header.size)
        given: Any = csv.reader(io.TextIOWrapper(opened, "utf-8", newline=""), delimiter=header.delimiter)
        try:
            # Empty lines are no rows.
            yield from ([*row, *answer] for row, answer in zip(filter(None, given), answers, strict=True))
        except ValueError:
            raise ServiceError("the number of answers is not that of the rows; is it the prediction API?") from None
