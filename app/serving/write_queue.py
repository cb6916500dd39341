"""A queue of entries for the data store, which a thread writes. When it is full, it drops entries and counts them."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from dosel.errors import DoselError

FLUSH_SECONDS = 1.0
MAX_RETRY_SECONDS = 30.0
CHUNK = 1_000
"""Entries that are written in one transaction."""

log = logging.getLogger("uvicorn.error")

T = TypeVar("T")


class WriteQueue(Generic[T]):
    """Accepts entries from any thread and writes them from its own. Adding an entry never blocks.

    Args:
        what: name of what is written, such as `prediction log`.
        capacity: length of the queue; 0 disables it.
        write: stores all entries of a chunk, or none. After a WarehouseError the chunk is tried again.
        name: names an entry for the service's log, without its values.
    """

    def __init__(self, what: str, capacity: int, write: Callable[[list[T]], None], name: Callable[[T], str]) -> None:
        self.dropped = 0
        self.stored = 0
        self._what = what
        self._capacity = capacity
        self._write = write
        self._name = name
        self._waiting: deque[T] = deque()
        # How many of the waiting entries are written one by one, since writing them together failed.
        self._singly = 0
        self._flushing = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)

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

    def offer(self, entry: T) -> None:
        """Add an entry; if the queue is full, drop and count it."""
        if len(self._waiting) < self._capacity:
            self._waiting.append(entry)
        elif self._capacity:
            self.dropped += 1

    def flush(self) -> bool:
        """Write the waiting entries now; return whether none is left."""
        with self._flushing:
            return self._flush()

    def _run(self) -> None:
        pause = FLUSH_SECONDS
        while not self._stopped.wait(pause):
            pause = FLUSH_SECONDS if self.flush() else min(2 * pause, MAX_RETRY_SECONDS)
        self.flush()

    def _flush(self) -> bool:
        while self._waiting:
            size = 1 if self._singly else min(CHUNK, len(self._waiting))
            chunk = [self._waiting[i] for i in range(size)]
            try:
                self._write(chunk)
            except DoselError as error:
                log.warning("%d entries of the %s wait: %s", len(self._waiting), self._what, error)
                return False
            except Exception as error:  # noqa: BLE001  a driver may raise whatever it likes
                if size > 1:
                    self._singly = size
                    continue
                # Without the error's message, which contains the row's values.
                name, kind = self._name(chunk[0]), type(error).__name__
                log.error("an entry of the %s cannot be stored and is dropped: %s (%s)", self._what, name, kind)
                self.dropped += 1
            else:
                self.stored += size
            self._singly = max(0, self._singly - 1)
            for _ in chunk:
                self._waiting.popleft()
        return True
