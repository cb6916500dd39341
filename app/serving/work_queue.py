"""A bounded queue with worker threads, for requests that take long."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from app.serving.loaded_model import Overloaded

T = TypeVar("T")


class WorkQueue:
    """A queue for one kind of work.

    Args:
        what: name of the work, in the plural.
        at_once: number of worker threads.
        waiting: number of requests that may wait for a thread.
    """

    def __init__(self, what: str, at_once: int, waiting: int) -> None:
        self._what = what
        self._most = at_once + waiting
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix=what)
        self._inside = 0

    async def run(self, prepare: Callable[[], Awaitable[Callable[[], T]]]) -> T:
        """Await `prepare`, which reads the request and returns a job, and run the job in a thread.

        Raises:
            Overloaded: the queue is full.
        """
        if self._inside >= self._most:
            raise Overloaded(f"the queue for {self._what} is full ({self._most}); try again later")
        self._inside += 1
        try:
            job = await prepare()
            return await asyncio.get_running_loop().run_in_executor(self._threads, job)
        finally:
            self._inside -= 1
