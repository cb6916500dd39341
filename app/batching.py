"""Many rows at once: read whole, checked whole, answered in order, in memory that does not grow with them.

A CSV lies on disk while it is worked on, and so does its answer. Nothing is sent before all rows were acceptable.
"""

import codecs
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv
from pydantic import ValidationError

from app.http.validation_errors import FieldError, RowError, cut, refusals, shown
from app.reading import REFUSED, RowReader, Spellings, UnreadableBody
from app.schemas.rows import Row
from app.serving.loaded_model import LoadedModel
from dosel.model.predictor import DECIMALS, Predictor, Scores
from dosel.usecases import UseCase

MAX_REPORTED_ROWS = 100
"""Bad rows that are told; reading stops there."""

CHUNK_ROWS = 8_192
BLOCK_BYTES = 1 << 20
"""What is read of a CSV at a time; no line may be longer."""


class InvalidRows(Exception):
    """Invalid rows: the first `MAX_REPORTED_ROWS` of them, numbered from 1; None means the body as a whole."""

    def __init__(self, errors: Sequence[RowError]) -> None:
        super().__init__("; ".join(error.message for error in errors[:3]))
        self.errors = errors


@dataclass
class Answered:
    """What became of a batch: how many rows were answered, and how often each class was the answer."""

    rows: int = 0
    classes: Counter[int] = field(default_factory=Counter)

    def add(self, predictor: Predictor, scores: Scores) -> None:
        self.rows += len(scores.chosen)
        counts = np.bincount(scores.chosen, minlength=len(predictor.classes))
        self.classes.update(dict(zip(predictor.classes, counts.tolist(), strict=True)))


class BatchReader:
    """Reads and answers batches of a use case."""

    def __init__(self, use_case: UseCase, row_model: type[Row]) -> None:
        self._use_case = use_case
        self._row_model = row_model
        self._reader = RowReader(use_case)
        self._spellings = {category.name: Spellings(category) for category in use_case.categories}

    def answer_json(self, body: bytes, served: LoadedModel, out: IO[bytes]) -> Answered:
        """Answers a JSON list of rows.

        Raises:
            UnreadableBody: it is not JSON.
            InvalidRows: it is no list of acceptable rows.
        """
        try:
            read = self._reader.many(body)
            numbers, codes = np.array(read.numbers, dtype=np.float64), np.array(read.codes, dtype=np.intp)
        except REFUSED:
            numbers, codes = self._explained(body)
        answered, predictor = Answered(), served.predictor
        out.write(b'{"predictions":[')
        for start in range(0, len(numbers), CHUNK_ROWS):
            scores = predictor.scores(numbers[start : start + CHUNK_ROWS], codes[start : start + CHUNK_ROWS])
            answered.add(predictor, scores)
            out.write(b"," * bool(start) + _json_rows(predictor, scores))
        out.write(b"]" + served.signature)
        return answered

    def answer_csv(self, file: Path, served: LoadedModel, out: IO[bytes]) -> Answered:
        """Answers the CSV in `file`: a header with the features' names in any order, then a row a line.

        Raises:
            UnreadableBody: it is not CSV, or not in UTF-8.
            InvalidRows: a row is not acceptable.
        """
        answered, predictor = Answered(), served.predictor
        errors: list[RowError] = []
        writer: Any = None
        for first, table in self._tables(file, errors):
            numbers, codes = self._columns(table, first, errors)
            if len({error.row for error in errors}) >= MAX_REPORTED_ROWS:
                break
            if errors:
                continue
            scores = predictor.scores(numbers, codes)
            answered.add(predictor, scores)
            answers = _arrow_rows(predictor, scores)
            if writer is None:
                writer = csv.CSVWriter(out, answers.schema, write_options=csv.WriteOptions(quoting_style="needed"))
            writer.write_table(answers)
        if errors:
            listed = sorted({error.row or 0 for error in errors})[:MAX_REPORTED_ROWS]
            raise InvalidRows(sorted((e for e in errors if (e.row or 0) in listed), key=lambda e: e.row or 0))
        if writer is None:
            none = _arrow_rows(predictor, Scores(np.empty(0, np.intp), np.empty((0, len(predictor.classes)))))
            writer = csv.CSVWriter(out, none.schema, write_options=csv.WriteOptions(quoting_style="needed"))
        writer.close()
        return answered

    def _explained(self, body: bytes) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
        """The rows by the long way, which either says what is wrong or finds that nothing is."""
        try:
            rows = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise UnreadableBody(f"the body is not JSON: {cut(str(error))}") from None
        if not isinstance(rows, list):
            raise InvalidRows([RowError.of(None, _whole("a JSON list of rows", shown(rows)))])
        good, errors, bad = [], [], 0
        for number, row in enumerate(rows, 1):
            try:
                good.append(self._row_model.model_validate(row).model_dump())
            except ValidationError as error:
                # As FastAPI gives them: where in the request it was comes first.
                found = [e | {"loc": ("body", *e["loc"])} for e in error.errors(include_url=False)]
                errors += [RowError.of(number, e) for e in refusals(found, self._use_case)]
                bad += 1
                if bad == MAX_REPORTED_ROWS:
                    break
        if errors:
            raise InvalidRows(errors)
        numbers = [[row[n.name] for n in self._use_case.numbers] for row in good]
        codes = [[self._spellings[c.name][row[c.name]] for c in self._use_case.categories] for row in good]
        return np.array(numbers, dtype=np.float64), np.array(codes, dtype=np.intp)

    def _tables(self, file: Path, errors: list[RowError]) -> Iterator[tuple[int, Any]]:
        """Pieces of the file, all text, each with its first row's number; lines of a wrong width go to `errors`."""
        _check_utf8(file)
        names = self._use_case.feature_names
        skipped: list[int] = []

        def refuse(row: Any) -> str:
            # Counted from 1 with the header, which is no row.
            number = row.number - 1
            skipped.append(number)
            if len(errors) < MAX_REPORTED_ROWS:
                expected, got = f"{row.expected_columns} values", f"{row.actual_columns}"
                errors.append(RowError.of(number, _whole(expected, got)))
            return "skip"

        try:
            reader = csv.open_csv(
                file,
                read_options=csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
                parse_options=csv.ParseOptions(invalid_row_handler=refuse),
                convert_options=csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
                ),
            )
            self._check_header(reader.schema.names)
            rows = 0
            for batch in reader:
                yield rows + 1 + len(skipped), batch
                rows += batch.num_rows
        except pa.ArrowInvalid as error:
            raise UnreadableBody(f"the body is not CSV: {cut(str(error))}") from None

    def _check_header(self, found: Sequence[str]) -> None:
        names = self._use_case.feature_names
        expected = f"a header with the columns {', '.join(names)}"
        if sorted(found) != sorted(names):
            missing = [name for name in names if name not in found]
            beside = ", ".join(name for name in found if name not in names) or "a name twice"
            told = f"lacks {', '.join(missing)}" if missing else f"one with {shown(beside)} beside"
            raise InvalidRows([RowError.of(None, _whole(expected, told))])

    def _columns(
        self, table: Any, first: int, errors: list[RowError]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
        """The rows as numbers and codes; what is not acceptable goes to `errors`, and its row then means nothing."""
        numbers = np.zeros((table.num_rows, len(self._use_case.numbers)))
        codes = np.zeros((table.num_rows, len(self._use_case.categories)), np.intp)
        for i, number in enumerate(self._use_case.numbers):
            column = table.column(number.name)
            numbers[:, i] = values = _floats(column)
            bad = ~((values >= number.minimum) & (values <= number.maximum))
            if number.integer:
                bad |= values != np.floor(values)
            if number.optional:
                bad &= ~_empty(column)
            self._refuse(number.name, number.describe_expected(), column, bad, first, errors)
        for i, category in enumerate(self._use_case.categories):
            column = table.column(category.name)
            encoded = column.dictionary_encode()
            places = np.array([self._place(category.name, word) for word in encoded.dictionary.to_pylist()], np.intp)
            codes[:, i] = found = places[encoded.indices.to_numpy(zero_copy_only=False)]
            bad = (found < 0) & ~_empty(column) if category.optional else found < 0
            self._refuse(category.name, category.describe_expected(), column, bad, first, errors)
        return numbers, codes

    def _place(self, name: str, word: str) -> int:
        try:
            return self._spellings[name][word]
        except KeyError:
            return -1

    def _refuse(
        self, name: str, expected: str, column: Any, bad: npt.NDArray[np.bool_], first: int, errors: list[RowError]
    ) -> None:
        for i in np.flatnonzero(bad)[:MAX_REPORTED_ROWS].tolist():
            text = column[i].as_py()
            got = shown(text) if text else "nothing"
            error = FieldError(
                field=name, expected=expected, got=got, message=f"{name}: expected {expected}, got {got}"
            )
            errors.append(RowError.of(first + i, error))


def _check_utf8(file: Path) -> None:
    # pyarrow tells what it skips only if it can decode it: a line that it cannot would be lost without a word.
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with file.open("rb") as opened:
            while block := opened.read(BLOCK_BYTES):
                decoder.decode(block)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise UnreadableBody(f"the body is not CSV in UTF-8: {error.reason}") from None


def _empty(column: Any) -> npt.NDArray[np.bool_]:
    """Where a column of text holds nothing."""
    return np.asarray(pc.equal(pc.utf8_trim_whitespace(column), "").to_numpy(zero_copy_only=False))


def _floats(column: Any) -> npt.NDArray[np.float64]:
    """Text as float64; what is no number, as NaN."""
    try:
        return column.cast(pa.float64()).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
    except pa.ArrowInvalid:
        return np.array([_float(text) for text in column.to_pylist()])


def _float(text: str) -> float:
    try:
        return float(pa.scalar(text).cast(pa.float64()).as_py())
    except pa.ArrowInvalid:
        return float("nan")


def _whole(expected: str, got: str) -> FieldError:
    return FieldError(field=None, expected=expected, got=got, message=f"expected {expected}, got {got}")


def _json_rows(predictor: Predictor, scores: Scores) -> bytes:
    """The answers as JSON objects, separated by commas."""
    heads = [{"prediction": code, "label": name} for code, name in zip(predictor.classes, predictor.names, strict=True)]
    names = predictor.names
    rows: Iterable[dict[str, Any]] = (
        heads[best] | {"probabilities": dict(zip(names, row, strict=True))}
        for best, row in zip(scores.chosen.tolist(), scores.probabilities.round(DECIMALS).tolist(), strict=True)
    )
    return msgspec.json.encode(list(rows))[1:-1]


def _arrow_rows(predictor: Predictor, scores: Scores) -> Any:
    """The answers as a table: prediction, label, and a column for each class's probability, by its label."""
    columns: dict[str, Any] = {
        "prediction": np.array(predictor.classes)[scores.chosen],
        "label": pc.take(pa.array(predictor.names), pa.array(scores.chosen)),
    }
    for name, probability in zip(predictor.names, scores.probabilities.round(DECIMALS).T, strict=True):
        columns[f"probability {name}"] = np.ascontiguousarray(probability)
    return pa.table(columns)
