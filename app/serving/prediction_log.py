"""The queue of the prediction log. It never blocks: when it is full, it drops entries and counts them."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from starlette.types import Scope

from dosel.errors import DoselError
from dosel.rows.columns import Columns
from dosel.usecases import UseCase

if TYPE_CHECKING:
    from dosel.registry.store import ModelVersion
    from dosel.warehouse.predictions import AnswerRecord, PredictionStore

FLUSH_SECONDS = 1.0
MAX_RETRY_SECONDS = 30.0
CHUNK = 1_000
"""Entries that are written in one transaction."""


class _Answer(msgspec.Struct):
    """What is kept of a `Prediction`."""

    prediction: int
    probabilities: msgspec.Raw


_encoded = msgspec.json.Encoder().encode
_decoded = msgspec.json.Decoder(_Answer).decode

log = logging.getLogger("uvicorn.error")


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


class PredictionLog:
    """Accepts entries from any thread and writes them from its own.

    Args:
        capacity: length of the queue; 0 disables the log.
        open_store: connects to the data store; called again until it succeeds.
    """

    def __init__(self, capacity: int, open_store: "Callable[[], PredictionStore]") -> None:
        self.dropped = 0
        self.stored = 0
        self._capacity = capacity
        self._open_store = open_store
        self._store: PredictionStore | None = None
        self._waiting: deque[LogEntry] = deque()
        # How many of the waiting entries are written one by one, since writing them together failed.
        self._singly = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write, name="prediction log", daemon=True)

    def start(self) -> None:
        if self._capacity:
            self._thread.start()

    def stop(self) -> None:
        """Write the waiting entries, for at most a few seconds, and stop."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def offer(self, entry: LogEntry) -> None:
        """Add an entry; if the queue is full, drop and count it."""
        if len(self._waiting) < self._capacity:
            self._waiting.append(entry)
        elif self._capacity:
            self.dropped += 1

    def _write(self) -> None:
        pause = FLUSH_SECONDS
        while not self._stopped.wait(pause):
            pause = FLUSH_SECONDS if self._flush() else min(2 * pause, MAX_RETRY_SECONDS)
        self._flush()

    def _flush(self) -> bool:
        """Write the waiting entries; return whether none is left."""
        while self._waiting:
            size = 1 if self._singly else min(CHUNK, len(self._waiting))
            chunk = [self._waiting[i] for i in range(size)]
            try:
                self._append(chunk)
            except DoselError as error:
                log.warning("%d entries of the prediction log wait: %s", len(self._waiting), error)
                return False
            except Exception as error:  # noqa: BLE001  a driver may raise whatever it likes
                if size > 1:
                    self._singly = size
                    continue
                # Without the error's message, which contains the row's values.
                name, kind = f"{chunk[0].request_id} row {chunk[0].row_no}", type(error).__name__
                log.error("an entry of the prediction log cannot be stored and is dropped: %s (%s)", name, kind)
                self.dropped += 1
            else:
                self.stored += size
            self._singly = max(0, self._singly - 1)
            for _ in chunk:
                self._waiting.popleft()
        return True

    def _append(self, chunk: list[LogEntry]) -> None:
        if self._store is None:
            self._store = self._open_store()
        self._store.append(_records(chunk))


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
