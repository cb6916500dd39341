"""The limits of shadowing: when a version has to leave, and when the API has no time for it."""

import threading
import time
from collections import deque

ANSWERS = 1_000
"""The last answers of a version, over which the p99 of its latency is taken."""

SLOW = ANSWERS // 100
"""With more slow answers among them, the p99 is slow."""

FLOOR_MS, TIMES = 50.0, 10.0
"""The p99 may be 50 ms, or ten times the champion's if that is more."""

WINDOW_SECONDS = 0.1
BUSY = 0.75
"""With a larger share of processor time, the thread that answers requests has no time to spare."""


class LatencyLimit:
    """Compares the p99 of a version's latency, in milliseconds, with the champion's on the same rows."""

    def __init__(self) -> None:
        self._latencies: deque[float] = deque(maxlen=ANSWERS)
        self._champions: deque[float] = deque(maxlen=ANSWERS)

    def add(self, latency: float, champion: float | None = None) -> str:
        """Count an answer; return why the version is too slow, or ""."""
        self._latencies.append(latency)
        if champion is not None:
            self._champions.append(champion)
        if latency <= FLOOR_MS:
            return ""
        limit = max(FLOOR_MS, TIMES * _p99(self._champions))
        slow = sum(one > limit for one in list(self._latencies))
        if slow <= SLOW:
            return ""
        return f"{slow} of its last {len(self._latencies):,} answers took more than {limit:,.0f} ms"


class BusyThread:
    """The share of the last moments in which a thread used a processor."""

    def __init__(self, thread: threading.Thread) -> None:
        assert thread.ident is not None
        self._clock = time.pthread_getcpuclockid(thread.ident)
        self._at, self._used = time.monotonic(), time.clock_gettime(self._clock)
        self._share = 0.0

    def is_busy(self) -> bool:
        """Whether the thread had no time to spare in the last full window."""
        now = time.monotonic()
        if (passed := now - self._at) >= WINDOW_SECONDS:
            used = time.clock_gettime(self._clock)
            self._share = (used - self._used) / passed
            self._at, self._used = now, used
        return self._share > BUSY


def _p99(latencies: deque[float]) -> float:
    ordered = sorted(latencies)
    return ordered[len(ordered) * 99 // 100] if ordered else 0.0
