"""Fairness between clients: thousands of requests of one client delay those of others by milliseconds only."""

import asyncio
from collections import deque
from collections.abc import Callable

AT_ONCE = 4
"""Steps that a client may take in one turn, an iteration of the event loop."""


class Turns:
    """Limits the steps that each client takes in a turn of the event loop; the rest follow in later turns, in order.

    A step is whatever the caller does when `take` allows it: here, parsing what a connection has received.
    """

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}
        self._waiting: dict[str, deque[Callable[[], None]]] = {}

    def take(self, client: str, later: Callable[[], None]) -> bool:
        """Whether the client may take a step now; if not, `later` is called when it may."""
        taken = self._taken.get(client, 0)
        if taken < AT_ONCE:
            if not self._taken:
                asyncio.get_running_loop().call_soon(self._next)
            self._taken[client] = taken + 1
            return True
        self._waiting.setdefault(client, deque()).append(later)
        return False

    def _next(self) -> None:
        self._taken.clear()
        # The event loop calls each step, so that one that fails ends no other client's turn.
        call_soon = asyncio.get_running_loop().call_soon
        for client, waiting in list(self._waiting.items()):
            self._taken[client] = some = min(AT_ONCE, len(waiting))
            for _ in range(some):
                call_soon(waiting.popleft())
            if not waiting:
                del self._waiting[client]
        if self._taken:
            call_soon(self._next)
