"""Bounded queues with worker threads, for requests that take long or wait for another service."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from app.serving.loaded_model import Overloaded
from app.serving.places import Places

T = TypeVar("T")

READING = 0.3
"""The largest share of the time in which threads read for requests while single rows are answered."""

ROW_SECONDS = 1.0
"""Readers pause while single rows come, and for so long after the last one."""

MOST_SECONDS = 0.5
"""The longest pause."""


class TooLate(Overloaded):
    """Work was not done before its deadline."""


class Pauses:
    """Pauses between the jobs of some threads while single rows are answered, which need the processor more.

    The share is of elapsed time, since a job that waits for MLflow or the data store keeps a processor busy there.

    Args:
        share: the largest share of the time in which one of the threads works.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._until = 0.0
        self._row_at = 0.0

    def row_came(self) -> None:
        """Note that a single row is being answered."""
        self._row_at = time.monotonic()

    @property
    def rows_come(self) -> bool:
        """Whether single rows are being answered."""
        return time.monotonic() < self._row_at + ROW_SECONDS

    def before(self, job: Callable[[], T]) -> T:
        """Do a job after the pause that the time of the last jobs requires."""
        if self.rows_come:
            time.sleep(max(self._until - time.monotonic(), 0.0))
        began = time.monotonic()
        try:
            return job()
        finally:
            ended = time.monotonic()
            earned = max(self._until, ended) + (ended - began) * (1 / self._share - 1)
            self._until = min(earned, ended + MOST_SECONDS)


class WorkQueue:
    """A queue for one kind of work, for the event loop's thread only. Clients take turns.

    Args:
        what: name of the work, in the plural.
        at_once: number of worker threads.
        waiting: number of requests that may wait for a thread.
        seconds: how long a request waits for its work. The work itself goes on, and keeps its place meanwhile.
        pauses: for work that leaves the processor to single rows.
        spare: number of further threads, which take work only while no single rows are answered.
        rows: knows whether single rows are answered; by default `pauses`.
    """

    def __init__(
        self,
        what: str,
        at_once: int,
        waiting: int,
        seconds: float | None = None,
        pauses: Pauses | None = None,
        spare: int = 0,
        rows: Pauses | None = None,
    ) -> None:
        self._pauses = pauses or Pauses(1.0)
        self._rows = rows or self._pauses
        self._what = what
        self._seconds = seconds
        self._places = Places(f"the queue for {what}", at_once + waiting)
        self._threads = ThreadPoolExecutor(at_once + spare, thread_name_prefix=what)
        self._at_once, self._spare, self._running = at_once, spare, 0
        # Each client's work, in the order of the clients' turns.
        self._lines: dict[str, deque[tuple[Callable[[], Any], asyncio.Future[Any]]]] = {}

    def check(self, client: str) -> None:
        """
        Raises:
            Overloaded: the queue has no place for this client.
        """
        self._places.check(client)

    async def run(self, client: str, job: Callable[[], T]) -> T:
        """Run a job in a thread.

        Raises:
            Overloaded: the queue has no place for this client.
            TooLate: the deadline passed.
        """
        self._places.take(client)
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        done.add_done_callback(_look_at_error)
        self._lines.setdefault(client, deque()).append((job, done))
        self._start()
        return await _within(self._seconds, self._what, done)

    def _start(self) -> None:
        """Give idle threads the next work."""
        most = self._at_once if self._rows.rows_come else self._at_once + self._spare
        while self._running < most and self._lines:
            client = next(iter(self._lines))
            line = self._lines.pop(client)
            job, done = line.popleft()
            if line:
                self._lines[client] = line
            try:
                running = asyncio.get_running_loop().run_in_executor(self._threads, self._pauses.before, job)
            except RuntimeError as error:
                # The system gives no further thread, or the API stops.
                self._places.leave(client)
                done.set_exception(Overloaded(f"{self._what} cannot be worked on now ({error}); try again later"))
                continue
            self._running += 1
            running.add_done_callback(partial(self._finish, client, done))

    def _finish(self, client: str, done: "asyncio.Future[T]", running: "asyncio.Future[T]") -> None:
        self._running -= 1
        self._places.leave(client)
        if running.cancelled():
            # The API stops.
            done.cancel()
        elif (error := running.exception()) is not None:
            done.set_exception(error)
        else:
            done.set_result(running.result())
        self._start()


class SharedCalls:
    """Calls with the same result for all callers: callers share a call that waits for the thread.

    Args:
        what: name of the calls, in the plural.
        seconds: how long a request waits for its call, which goes on after that.
        pauses: as for a `WorkQueue`.
    """

    def __init__(self, what: str, seconds: float, pauses: Pauses | None = None) -> None:
        self._pauses = pauses or Pauses(1.0)
        self._what = what
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=what)
        self._calls: dict[Hashable, Future[Any]] = {}

    async def run(self, key: Hashable, call: Callable[[], T]) -> T:
        """Make a call that begins after this moment, or share one of this key that has not begun.

        A call that runs already is not shared: what it saw may be older than what this request wants to see.

        Raises:
            TooLate: the deadline passed.
        """
        waiting = self._calls.get(key)
        if waiting is None or waiting.running() or waiting.done():
            waiting = self._calls[key] = self._thread.submit(self._pauses.before, call)
        return await _within(self._seconds, self._what, asyncio.wrap_future(waiting))


def _look_at_error(done: "asyncio.Future[Any]") -> None:
    """Keep asyncio from logging the error of work whose request is over."""
    if not done.cancelled():
        done.exception()


async def _within(seconds: float | None, what: str, done: "asyncio.Future[T]") -> T:
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.shield(done)
    except TimeoutError:
        if done.done():
            # The work's own.
            raise
        raise TooLate(f"{what} take longer than {seconds:g} s; try again later") from None
