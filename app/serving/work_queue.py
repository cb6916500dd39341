"""Work that takes longer than a request may hold up the others: threads for it, and a bounded queue before them."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from app.serving.loaded_model import Overloaded

T = TypeVar("T")


class WorkQueue:
    """
    Args:
        what: what is worked on, in the plural.
        at_once: how many are worked on at once.
        waiting: how many more may wait for that.
    """

    def __init__(self, what: str, at_once: int, waiting: int) -> None:
        self._what = what
        self._most = at_once + waiting
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix=what)
        self._inside = 0

    async def run(self, taken_in: Callable[[], Awaitable[Callable[[], T]]]) -> T:
        """Takes the request in, then has a thread do the work that gives.

        Raises:
            Overloaded: too many wait already.
        """
        if self._inside >= self._most:
            raise Overloaded(f"{self._inside} {self._what} wait already, which is as many as may")
        self._inside += 1
        try:
            job = await taken_in()
            return await asyncio.get_running_loop().run_in_executor(self._threads, job)
        finally:
            self._inside -= 1
