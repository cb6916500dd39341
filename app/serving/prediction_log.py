"""The prediction log: each answered row, on its way to the data store."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from starlette.types import Scope

from app.serving.write_queue import WriteQueue
from dosel.rows.columns import Columns
from dosel.usecases import UseCase

if TYPE_CHECKING:
    from dosel.registry.store import ModelVersion
    from dosel.warehouse.predictions import AnswerRecord, PredictionStore


class _Answer(msgspec.Struct):
    """What is kept of a `Prediction`."""

    prediction: int
    probabilities: msgspec.Raw


_encoded = msgspec.json.Encoder().encode
_decoded = msgspec.json.Decoder(_Answer).decode


class LogEntry(NamedTuple):
    """One answered row. Cheap to create; the writing thread formats it.

    `numbers` and `codes` are the row's, as in `Columns`; `answer` is its `Prediction` as JSON. Plain tuples and bytes,
    which the garbage collector need not look through while thousands of them wait. The row is number `row_no`, from 1,
    of the request's `rows`.
    """

    request_id: str
    trace_id: str | None
    at: float
    use_case: UseCase
    version: "ModelVersion"
    numbers: Sequence[float]
    codes: Sequence[int]
    answer: bytes
    row_no: int = 1
    rows: int = 1


def ids_of(scope: Scope) -> tuple[str, str | None]:
    """A request's id, which is the server's own, and what the client calls it."""
    return scope.get("dosel.request_id", ""), scope.get("dosel.trace_id")


class PredictionLog(WriteQueue[LogEntry]):
    """The queue of the prediction log.

    Args:
        capacity: length of the queue; 0 disables the log.
        open_store: connects to the data store; called again until it succeeds.
    """

    def __init__(self, capacity: int, open_store: "Callable[[], PredictionStore]") -> None:
        super().__init__("prediction log", capacity, self._append, _name)
        self._open_store = open_store
        self._store: PredictionStore | None = None

    def _append(self, chunk: list[LogEntry]) -> None:
        if self._store is None:
            self._store = self._open_store()
        self._store.append(_records(chunk))


def _name(entry: LogEntry) -> str:
    return f"{entry.request_id} row {entry.row_no}"


def _records(entries: Sequence[LogEntry]) -> "list[AnswerRecord]":
    by_use_case: dict[str, list[LogEntry]] = {}
    for entry in entries:
        by_use_case.setdefault(entry.use_case.name, []).append(entry)
    return [record for mine in by_use_case.values() for record in _records_of(mine[0].use_case, mine)]


def _records_of(use_case: UseCase, entries: Sequence[LogEntry]) -> "Iterator[AnswerRecord]":
    # Imported here: it takes a second, in which the app can already answer /healthz.
    from dosel.rows.hashing import feature_keys
    from dosel.warehouse.predictions import AnswerRecord

    numbers = np.array([entry.numbers for entry in entries], np.float64).reshape(len(entries), -1)
    codes = np.array([entry.codes for entry in entries], np.intp).reshape(len(entries), -1)
    keys = feature_keys(use_case, Columns(numbers, codes)).tolist()
    names = [number.name for number in use_case.numbers] + [category.name for category in use_case.categories]
    # The last one is that of a missing value, whose code is -1; a missing number is null in JSON, too.
    words = [(*category.values, None) for category in use_case.categories]
    for entry, key in zip(entries, keys, strict=True):
        answer = _decoded(entry.answer)
        texts = [values[code] for values, code in zip(words, entry.codes, strict=True)]
        yield AnswerRecord(
            entry.request_id,
            entry.row_no,
            entry.rows,
            entry.trace_id,
            entry.at,
            use_case.name,
            entry.version.name,
            entry.version.version,
            _encoded(dict(zip(names, (*entry.numbers, *texts), strict=True))).decode(),
            key,
            bytes(answer.probabilities).decode(),
            answer.prediction,
        )
