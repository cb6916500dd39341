"""Answers for many rows, written in the order of the rows, in memory that does not grow with them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from app.serving.loaded_model import LoadedModel
from dosel.rows.columns import Columns
from dosel.rows.csv import Block

if TYPE_CHECKING:
    from dosel.model.predictor import Predictor, Scores

CHUNK_ROWS = 8_192


@dataclass
class BatchSummary:
    """How many rows were answered, and how often each class was the answer."""

    rows: int = 0
    classes: Counter[int] = field(default_factory=Counter)

    def add(self, predictor: "Predictor", scores: "Scores") -> None:
        self.rows += len(scores.chosen)
        counts = np.bincount(scores.chosen, minlength=len(predictor.classes))
        self.classes.update(dict(zip(predictor.classes, counts.tolist(), strict=True)))


def write_json(rows: Columns, loaded: LoadedModel, out: IO[bytes]) -> BatchSummary:
    """Write the answers as `BatchAnswer`."""
    summary, predictor = BatchSummary(), loaded.predictor
    out.write(b'{"predictions":[')
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = rows[start : start + CHUNK_ROWS]
        scores = predictor.scores(chunk.numbers, chunk.codes)
        summary.add(predictor, scores)
        out.write(b"," * bool(start) + _json_rows(predictor, scores))
    out.write(b"]" + loaded.signature)
    return summary


def write_csv(blocks: Iterable[Block], loaded: LoadedModel, out: IO[bytes]) -> BatchSummary:
    """Write each row's extra columns, then prediction, label, and each class's probability in a column by its label."""
    summary, predictor, writer = BatchSummary(), loaded.predictor, None
    for block in blocks:
        scores = predictor.scores(block.columns.numbers, block.columns.codes)
        summary.add(predictor, scores)
        answers = _arrow_rows(predictor, scores, block.extra)
        if writer is None:
            options = csv.WriteOptions(quoting_style="needed", delimiter=block.delimiter)
            writer = csv.CSVWriter(out, answers.schema, write_options=options)
        writer.write_table(answers)
    if writer is not None:
        writer.close()
    return summary


def _json_rows(predictor: "Predictor", scores: "Scores") -> bytes:
    """The answers as JSON objects, separated by commas."""
    heads = [{"prediction": code, "label": name} for code, name in zip(predictor.classes, predictor.names, strict=True)]
    rows = [
        heads[best] | {"probabilities": dict(zip(predictor.names, row, strict=True))}
        for best, row in zip(scores.chosen.tolist(), scores.rounded.tolist(), strict=True)
    ]
    return msgspec.json.encode(rows)[1:-1]


def _arrow_rows(predictor: "Predictor", scores: "Scores", extra: Any) -> Any:
    names = [*extra.column_names, "prediction", "label", *(f"probability {name}" for name in predictor.names)]
    columns = [
        *extra.columns,
        np.array(predictor.classes)[scores.chosen],
        pc.take(pa.array(predictor.names), pa.array(scores.chosen)),
        *(np.ascontiguousarray(probability) for probability in scores.rounded.T),
    ]
    return pa.table(columns, names)
