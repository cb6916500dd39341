"""Rows from CSV, for ingest and for bulk requests.

A CSV is in UTF-8, with or without a byte order mark. Its values are separated by `,` or `;`; with `;`, numbers may
have a decimal comma. The header names the columns in any order, by their names or aliases, without regard to case and
separators. Other columns may be there, too.

Arrow is imported where it is used: it takes 36 MB, which an API without bulk requests does not need.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any, Protocol

import numpy as np

from dosel.rows.columns import Columns
from dosel.rows.shortened import cut
from dosel.rows.validation import MAX_INVALID_ROWS, Errors, InvalidRows, InvalidValue, UnreadableRows, Validator
from dosel.usecases import Category, Feature, Number, UseCase, plain_name

BLOCK_BYTES = 1 << 20
"""Bytes that are read at a time; no line may be longer."""

MAX_HEADER_BYTES = 1 << 16

MAX_EXTRA_COLUMNS = 300

DELIMITERS = (",", ";")

QUOTE_NOT_CLOSED = 'a quote (") is not closed; within a quoted value, a quote is written twice'

_FIRST_LINE = re.compile(r'[\r\n]*((?:[^"\r\n]++|"[^"]*+")*+)(?:\r\n|\r|\n|\Z)')
_DECIMAL_COMMA = r"^(\s*[+-]?\d*),(\d+(?:[eE][+-]?\d+)?\s*)$"
_DECIMAL_POINT = r"\1.\2"


class Named(Protocol):
    """A column with its names."""

    @property
    def name(self) -> str: ...

    @property
    def aliases(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Header:
    """A CSV's first line: `places` has each declared column's position, `size` counts bytes up to the next line."""

    names: tuple[str, ...]
    delimiter: str
    places: dict[str, int]
    size: int

    @property
    def extra(self) -> tuple[int, ...]:
        """Positions of the columns that are not declared."""
        return tuple(sorted(set(range(len(self.names))) - set(self.places.values())))


@dataclass(frozen=True)
class Block:
    """Some valid rows of a CSV, and an Arrow table of its undeclared columns, as text."""

    columns: Columns
    extra: Any
    delimiter: str


def read_header(columns: Sequence[Named], beginning: bytes) -> Header:
    """Read the header of a CSV.

    Args:
        columns: the required columns.
        beginning: the first `MAX_HEADER_BYTES` of the file, or the whole file.

    Raises:
        UnreadableRows: there is no header.
        InvalidRows: a declared column is missing or occurs twice.
    """
    marked = beginning.startswith(codecs.BOM_UTF8)
    try:
        # The bytes may end within a character.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(beginning)
    except UnicodeDecodeError as error:
        raise UnreadableRows(f"not CSV in UTF-8: {error.reason}") from None
    line, end = _first_line(text)
    if end == len(text) and len(beginning) >= MAX_HEADER_BYTES:
        raise UnreadableRows(f"not CSV: its first line is longer than {MAX_HEADER_BYTES:,} bytes")
    most = len(columns) + MAX_EXTRA_COLUMNS
    delimiter = _delimiter(columns, line, most)
    names = _split(line, delimiter, strict=True)
    if len(names) > most:
        raise UnreadableRows(f"CSV with {len(names)} columns; at most {most} are accepted")
    places = _places(columns, names)
    missing = [column.name for column in columns if column.name not in places]
    twice = [column.name for column in columns if len(places.get(column.name, ())) > 1]
    if missing or twice:
        expected = f"a header with the columns {', '.join(column.name for column in columns)}"
        without = [f"without {', '.join(missing)}"] if missing else []
        doubled = [f"with two columns for {', '.join(twice)}"] if twice else []
        got = f"one {' and '.join(without + doubled)}"
        raise InvalidRows([InvalidValue(None, expected, f"{got}: {', '.join(names)[:300]}")])
    size = len(codecs.BOM_UTF8) * marked + len(text[:end].encode())
    return Header(names, delimiter, {name: found[0] for name, found in places.items()}, size)


def read_texts(use_case: UseCase, content: bytes) -> tuple[Header, list[list[str]]]:
    """The declared columns of a CSV, in declared order, the target last, as text with decimal points.

    A line with more or fewer values than the header stays as it is, so that the validator refuses it.

    Raises:
        UnreadableRows: it is no CSV.
        InvalidRows: a declared column is missing or occurs twice.
    """
    columns = (*use_case.features, use_case.target)
    header = read_header(columns, content[:MAX_HEADER_BYTES])
    try:
        text = io.StringIO(content[header.size :].decode(), newline="")
        lines = [line for line in csv.reader(text, delimiter=header.delimiter, strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UnreadableRows(f"not CSV in UTF-8: {error}") from None
    places, width = [header.places[column.name] for column in columns], len(header.names)
    rows = [[line[place] for place in places] if len(line) == width else _misfit(line, len(columns)) for line in lines]
    if header.delimiter == ";":
        numeric = [place for place, column in enumerate(columns) if not isinstance(column, Category)]
        for row in rows:
            if len(row) == len(columns):
                for place in numeric:
                    row[place] = re.sub(_DECIMAL_COMMA, _DECIMAL_POINT, row[place])
    return header, rows


class CsvReader:
    """Reads the features of rows from a CSV, block by block."""

    def __init__(self, use_case: UseCase) -> None:
        self._use_case = use_case
        self._validator = Validator(use_case)

    def blocks(self, body: IO[bytes]) -> Iterator[Block]:
        """The rows of a CSV, in order; at least one block, which may be empty.

        Args:
            body: a file, from whose beginning the rows are read; it stays open.

        Raises:
            UnreadableRows: it is no CSV.
            InvalidRows: rows are invalid; raised after the last row or the `MAX_INVALID_ROWS`th invalid one.
        """
        import pyarrow as pa

        body.seek(0)
        header = read_header(self._use_case.features, body.read(MAX_HEADER_BYTES))
        has_rows, has_quotes = _scan(body, header.size)
        if not has_rows:
            nothing = pa.record_batch([pa.array([], pa.string())] * len(header.names), _positions(header))
            yield self._block(header, nothing)[0]
            return
        errors = Errors()
        try:
            for numbers, batch in _batches(body, header, has_quotes, errors):
                block, found = self._block(header, batch)
                errors |= {int(numbers[place]): row_errors for place, row_errors in found.items()}
                if len(errors) >= MAX_INVALID_ROWS:
                    break
                if not errors:
                    yield block
        except pa.ArrowInvalid as error:
            if len(errors) < MAX_INVALID_ROWS:
                raise UnreadableRows(f"not CSV: {cut(str(error))}") from None
        if errors:
            raise InvalidRows.numbered(errors)

    def _block(self, header: Header, batch: Any) -> tuple[Block, Errors]:
        import pyarrow as pa

        texts = {feature.name: self._text(header, batch, feature) for feature in self._use_case.features}
        checked = self._validator.check(texts, batch.num_rows)
        extra = pa.table([batch.column(place) for place in header.extra], [header.names[i] for i in header.extra])
        errors = checked.errors(lambda place, name: texts[name][place].as_py(), MAX_INVALID_ROWS)
        return Block(checked.columns, extra, header.delimiter), errors

    def _text(self, header: Header, batch: Any, feature: Feature) -> Any:
        column = batch.column(header.places[feature.name])
        if header.delimiter == ";" and isinstance(feature, Number):
            import pyarrow.compute as pc

            return pc.replace_substring_regex(column, _DECIMAL_COMMA, _DECIMAL_POINT)
        return column


def _first_line(text: str) -> tuple[str, int]:
    """The first line that is not empty, and where it ends; a line may go on within quotes."""
    found = _FIRST_LINE.match(text)
    if not found or not found[1]:
        raise UnreadableRows("not CSV: it is empty" if not text.strip() else f"not CSV: {QUOTE_NOT_CLOSED}")
    return found[1], found.end()


def _split(line: str, delimiter: str, strict: bool = False) -> tuple[str, ...]:
    try:
        return tuple(next(csv.reader([line], delimiter=delimiter, strict=strict)))
    except csv.Error as error:
        raise UnreadableRows(f"not CSV: {error}") from None


def _delimiter(columns: Sequence[Named], line: str, most: int) -> str:
    """The delimiter that finds most of the columns; of equals, the first one."""
    found = {}
    for delimiter in DELIMITERS:
        found[delimiter] = len(_places(columns, _split(line, delimiter)[:most]))
        if found[delimiter] == len(columns):
            break
    return max(found, key=found.__getitem__)


def _places(columns: Sequence[Named], names: Sequence[str]) -> dict[str, list[int]]:
    """Positions of each declared column, by its name or an alias; missing columns are left out."""
    named = _by_plain_name(tuple((column.name, *column.aliases) for column in columns))
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        for column in named.get(plain_name(name), ()):
            found.setdefault(column, []).append(place)
    return found


@lru_cache(64)
def _by_plain_name(columns: tuple[tuple[str, ...], ...]) -> dict[str, set[str]]:
    """The columns that each plain name may mean; of a column, its name and aliases are given."""
    named: dict[str, set[str]] = {}
    for names in columns:
        for name in names:
            named.setdefault(plain_name(name), set()).add(names[0])
    return named


def _misfit(line: list[str], width: int) -> list[str]:
    # A line with as many values as declared columns would look like a row of those columns.
    return [*line, ""] if len(line) == width else line


def _scan(body: IO[bytes], start: int) -> tuple[bool, bool]:
    """Whether a CSV has rows after its header, and whether any value is quoted.

    Raises:
        UnreadableRows: it is not UTF-8, or the last quote is not closed: Arrow would drop or join lines silently.
    """
    decoder, has_rows, quotes = codecs.getincrementaldecoder("utf-8")(), False, 0
    try:
        body.seek(start)
        while block := body.read(BLOCK_BYTES):
            decoder.decode(block)
            quotes += block.count(b'"')
            has_rows = has_rows or bool(block.strip(b"\r\n"))
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise UnreadableRows(f"not CSV in UTF-8: {error.reason}") from None
    if quotes % 2:
        raise UnreadableRows(f"not CSV: {QUOTE_NOT_CLOSED}")
    return has_rows, quotes > 0


def _batches(body: IO[bytes], header: Header, has_quotes: bool, errors: Errors) -> Iterator[tuple[Any, Any]]:
    """Arrow batches of text with their rows' numbers; lines with more or fewer values go to `errors`."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    misfits: list[int] = []

    def refuse(line: Any) -> str:
        misfits.append(line.number)
        errors[line.number] = [InvalidValue(None, f"{line.expected_columns} values", str(line.actual_columns))]
        # An "error" ends the reading.
        return "error" if len(errors) >= MAX_INVALID_ROWS else "skip"

    names = _positions(header)
    body.seek(header.size)
    reader = arrow_csv.open_csv(
        pa.PythonFile(body, mode="r"),
        arrow_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=names),
        arrow_csv.ParseOptions(delimiter=header.delimiter, newlines_in_values=has_quotes, invalid_row_handler=refuse),
        arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
    )
    first = 1
    for batch in reader:
        skipped = [number for number in misfits if number >= first]
        numbers = np.arange(first, first + batch.num_rows + len(skipped))
        if skipped:
            numbers = np.setdiff1d(numbers, skipped)[: batch.num_rows]
        yield numbers, batch
        if batch.num_rows:
            first = int(numbers[-1]) + 1


def _positions(header: Header) -> list[str]:
    """Names for Arrow, since a file's own names may be empty or equal."""
    return [str(place) for place in range(len(header.names))]
