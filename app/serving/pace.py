"""A limit on the bytes that uploads bring in a second."""

import asyncio
import time

LONGEST_BURST_SECONDS = 0.02


class Pace:
    """Makes uploads wait for each other, so that receiving them leaves the event loop time for other requests.

    Args:
        rate: bytes per second, of all uploads together.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._done = 0.0

    async def take(self, size: int) -> None:
        """Wait until some more bytes may be received."""
        now = time.monotonic()
        self._done = max(self._done, now) + size / self._rate
        if (ahead := self._done - now) > LONGEST_BURST_SECONDS:
            await asyncio.sleep(ahead)
