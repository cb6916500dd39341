"""Turns in the event loop, so that a client with thousands of requests at once holds the others up for milliseconds."""

import asyncio
from collections import deque

AT_ONCE = 32
"""Steps that a client may begin in one turn. A request has two: when its head has arrived, and when its body has."""


class Turns:
    """Counts what each client begins in a turn of the event loop; what is too much waits for later turns, in order."""

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def begin(self, client: str) -> asyncio.Future[None] | None:
        """Count a step; if the client has begun enough in this turn, return what the step has to wait for."""
        begun = self._begun.get(client, 0)
        if begun < AT_ONCE:
            if not self._begun:
                asyncio.get_running_loop().call_soon(self._next)
            self._begun[client] = begun + 1
            return None
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(waiting)
        return waiting

    def _next(self) -> None:
        self._begun.clear()
        for client, waiting in list(self._waiting.items()):
            self._begun[client] = some = min(AT_ONCE, len(waiting))
            for _ in range(some):
                if not (step := waiting.popleft()).done():
                    step.set_result(None)
            if not waiting:
                del self._waiting[client]
        if self._begun:
            asyncio.get_running_loop().call_soon(self._next)
