"""Answers for many rows, written in the order of the rows, in memory that does not grow with them."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import starmap
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from app.serving.loaded_model import LoadedModel
from dosel.rows.columns import Columns

if TYPE_CHECKING:
    from dosel.model.predictor import Predictor, Scores
    from dosel.rows.csv import Block

CHUNK_ROWS = 2_048
"""Rows that are encoded at once, while no other thread of Python runs."""


_encoded = msgspec.json.Encoder().encode


class Sampled(NamedTuple):
    """An answered row, as in `LogEntry`; `row_no` counts from 1."""

    row_no: int
    numbers: list[float]
    codes: list[int]
    answer: bytes


class BatchSample:
    """How many rows were answered, and at most `limit` of them at even distances, the first one among them."""

    def __init__(self, limit: int) -> None:
        self.rows = 0
        self.sampled: list[Sampled] = []
        self._limit = limit
        self._distance = 1

    def add(self, predictor: "Predictor", rows: Columns, scores: "Scores") -> None:
        before, self.rows = self.rows, self.rows + len(rows)
        if not self._limit:
            return
        while self.rows > self._limit * self._distance:
            self._distance *= 2
        self.sampled = [row for row in self.sampled if not (row.row_no - 1) % self._distance]
        places = slice(-before % self._distance, len(rows), self._distance)
        numbers, codes = rows.numbers[places].tolist(), rows.codes[places].tolist()
        answers = map(_encoded, _objects(predictor, scores[places]))
        numbered = range(before + places.start + 1, self.rows + 1, self._distance)
        self.sampled += map(Sampled, numbered, numbers, codes, answers)


def write_json(rows: Columns, loaded: LoadedModel, out: IO[bytes], sample: BatchSample) -> None:
    """Write the answers as `BatchAnswer`."""
    predictor = loaded.predictor
    out.write(b'{"predictions":[')
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = rows[start : start + CHUNK_ROWS]
        scores = predictor.scores(chunk.numbers, chunk.codes)
        sample.add(predictor, chunk, scores)
        out.write(b"," * bool(start) + _json_rows(predictor, scores))
    out.write(b"]" + loaded.model_suffix)


def write_csv(blocks: "Iterable[Block]", loaded: LoadedModel, out: IO[bytes], sample: BatchSample) -> None:
    """Write each row's extra columns, then prediction, label, and each class's probability in a column by its label."""
    from pyarrow import csv

    predictor, writer = loaded.predictor, None
    for block in blocks:
        scores = predictor.scores(block.columns.numbers, block.columns.codes)
        sample.add(predictor, block.columns, scores)
        answers = _arrow_rows(predictor, scores, block.extra)
        if writer is None:
            options = csv.WriteOptions(quoting_style="needed", delimiter=block.delimiter)
            writer = csv.CSVWriter(out, answers.schema, write_options=options)
        writer.write_table(answers)
    if writer is not None:
        writer.close()


def _json_rows(predictor: "Predictor", scores: "Scores") -> bytes:
    """The answers as JSON objects, separated by commas."""
    return _encoded(list(_objects(predictor, scores)))[1:-1]


def _objects(predictor: "Predictor", scores: "Scores") -> Iterator[Any]:
    """Each answer, with the fields of `Prediction`."""
    codes, labels = (map(of.__getitem__, scores.chosen.tolist()) for of in (predictor.classes, predictor.names))
    answer, probabilities = _structs(predictor.names)
    return map(answer, codes, labels, starmap(probabilities, predictor.shown(scores).tolist()))


@lru_cache(64)
def _structs(labels: tuple[str, ...]) -> tuple[Any, Any]:
    """Structs of an answer and of its probabilities, which are made in a third of the time of dicts."""
    names = {f"class_{place}": label for place, label in enumerate(labels)}
    probabilities = msgspec.defstruct("Probabilities", [(name, float) for name in names], rename=names, gc=False)
    fields = [("prediction", int), ("label", str), ("probabilities", probabilities)]
    return msgspec.defstruct("Answer", fields, gc=False), probabilities


def _arrow_rows(predictor: "Predictor", scores: "Scores", extra: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    names = [*extra.column_names, "prediction", "label", *(f"probability {name}" for name in predictor.names)]
    columns = [
        *extra.columns,
        np.array(predictor.classes)[scores.chosen],
        pc.take(pa.array(predictor.names), pa.array(scores.chosen)),
        *(np.ascontiguousarray(probability) for probability in predictor.shown(scores).T),
    ]
    return pa.table(columns, names)
