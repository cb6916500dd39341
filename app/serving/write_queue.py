"""A queue of entries for the data store, which a thread writes. When it is full, it drops entries and counts them."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from math import ceil
from typing import Generic, TypeVar

from dosel.errors import DoselError

FLUSH_SECONDS = 1.0
"""About how long an entry waits before it is written."""
MAX_RETRY_SECONDS = 30.0
CHUNK = 1_000
"""Most entries that are written in one transaction."""
SLICE = 40
"""Entries that the thread writes at a time, if few wait."""
SLICES = 50
"""Most transactions of the thread in `FLUSH_SECONDS`; with more entries, each has more."""

log = logging.getLogger("uvicorn.error")

T = TypeVar("T")


class NotStored(Exception):
    """The data store does not accept an entry. The message says why, without the entry's values."""


class WriteQueue(Generic[T]):
    """Accepts entries from any thread and writes them from its own. Adding an entry never blocks.

    The thread writes a few entries at a time, at even distances. Writing the entries of a second together would take
    the interpreter's lock so often that requests wait for tens of milliseconds, every second.

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
        # Entries that have left the queue, written or not.
        self._done = 0
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

    def offer(self, entry: T, share: float = 1.0) -> None:
        """Add an entry; drop and count it if the queue is full.

        Args:
            share: the part of the queue beyond which this entry is dropped.
        """
        if len(self._waiting) < self._capacity * share:
            self._waiting.append(entry)
        elif self._capacity:
            self.dropped += 1

    def flush(self) -> bool:
        """Write the entries that wait now, and not those that come meanwhile; return whether none of them is left."""
        with self._flushing:
            until = self._done + len(self._waiting)
            while self._done < until:
                if not self._write_some(CHUNK):
                    return False
            return True

    def _run(self) -> None:
        pause = retry = FLUSH_SECONDS
        while not self._stopped.wait(pause):
            slices = min(SLICES, ceil(len(self._waiting) / SLICE)) or 1
            with self._flushing:
                done = self._write_some(ceil(len(self._waiting) / slices))
            retry = FLUSH_SECONDS if done else min(2 * retry, MAX_RETRY_SECONDS)
            # Single entries are what is left of a chunk that failed.
            pause = (0.0 if self._singly else FLUSH_SECONDS / slices) if done else retry
        self.flush()

    def _write_some(self, most: int) -> bool:
        """Write the first waiting entries, or drop one that cannot be stored; return False to try again later."""
        size = 1 if self._singly else min(most, CHUNK, len(self._waiting))
        if not size:
            return True
        chunk = [self._waiting[i] for i in range(size)]
        try:
            self._write(chunk)
        except DoselError as error:
            log.warning("%d entries of the %s wait: %s", len(self._waiting), self._what, error)
            return False
        except Exception as error:  # noqa: BLE001  a driver may raise whatever it likes
            if size > 1:
                self._singly = size
                return True
            # Another error's message may contain the row's values.
            name, kind = self._name(chunk[0]), str(error) if isinstance(error, NotStored) else type(error).__name__
            log.error("an entry of the %s cannot be stored and is dropped: %s (%s)", self._what, name, kind)
            self.dropped += 1
        else:
            self.stored += size
        self._singly = max(0, self._singly - 1)
        for _ in chunk:
            self._waiting.popleft()
        self._done += size
        return True
