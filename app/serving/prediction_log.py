"""The queue of the prediction log. It never blocks: when it is full, it drops entries and counts them."""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Self

from starlette.types import Scope

from dosel.errors import DoselError
from dosel.usecases import UseCase

if TYPE_CHECKING:
    from dosel.registry.store import ModelVersion
    from dosel.warehouse.predictions import PredictionStore

FLUSH_SECONDS = 1.0
MAX_RETRY_SECONDS = 30.0
CHUNK = 1_000
"""Entries that are written in one transaction."""

log = logging.getLogger("uvicorn.error")


class LogEntry(NamedTuple):
    """One answered request. Cheap to create; the writing thread formats it."""

    request_id: str
    at: float
    use_case: UseCase
    version: "ModelVersion"
    rows: int
    asked: bytes
    answered: int | dict[int, int]

    @classmethod
    def of(cls, scope: Scope, use_case: UseCase, version: "ModelVersion", asked: bytes, answered: int) -> Self:
        return cls(scope.get("dosel.request_id", ""), time.time(), use_case, version, 1, asked, answered)


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
            chunk = [self._waiting[i] for i in range(min(CHUNK, len(self._waiting)))]
            try:
                self._append(chunk)
            except DoselError as error:
                log.warning("%d entries of the prediction log wait: %s", len(self._waiting), error)
                return False
            except Exception:
                # These entries would fail again and block those behind them.
                log.exception("%d entries of the prediction log cannot be stored; they are dropped", len(chunk))
                self.dropped += len(chunk)
            else:
                self.stored += len(chunk)
            for _ in chunk:
                self._waiting.popleft()
        return True

    def _append(self, chunk: list[LogEntry]) -> None:
        from dosel.warehouse.predictions import PredictionRecord

        if self._store is None:
            self._store = self._open_store()
        self._store.append(
            [
                PredictionRecord(
                    request_id=entry.request_id,
                    at=entry.at,
                    use_case=entry.use_case.name,
                    model=entry.version.name,
                    version=entry.version.version,
                    rows=entry.rows,
                    asked=entry.asked.decode("utf-8", "replace"),
                    answered=str(entry.answered) if isinstance(entry.answered, int) else json.dumps(entry.answered),
                )
                for entry in chunk
            ]
        )
