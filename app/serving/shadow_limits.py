"""The limits of shadowing: when a version has to leave, and when the API has no time for it."""

import threading
import time
from collections import deque
from pathlib import Path

ANSWERS = 1_000
"""The number of a version's last answers whose p99 latency is compared."""

SLOW = ANSWERS // 100
"""If more than this many of the answers took longer than the limit, their p99 is above it."""

FLOOR_MS, TIMES = 50.0, 10.0
"""The p99 may be 50 ms, or ten times the champion's if that is more."""

WINDOW_SECONDS = 0.1
BUSY = 0.75
"""If the thread that answers requests is busy for a larger share of the time, rows for shadows are dropped."""


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
    """The share of the last moments in which a thread ran, or waited for a processor that others used."""

    def __init__(self, thread: threading.Thread) -> None:
        assert thread.ident is not None
        self._statistics = Path(f"/proc/self/task/{thread.native_id}/schedstat")
        self._clock = time.pthread_getcpuclockid(thread.ident)
        self._at, self._busy = time.monotonic(), self._seconds()
        self._share = 0.0

    def is_busy(self) -> bool:
        """Whether the thread had no time to spare in the last full window."""
        now = time.monotonic()
        if (passed := now - self._at) >= WINDOW_SECONDS:
            busy = self._seconds()
            self._share = (busy - self._busy) / passed
            self._at, self._busy = now, busy
        return self._share > BUSY

    def _seconds(self) -> float:
        try:
            running, waiting, _ = self._statistics.read_text().split()
            return (int(running) + int(waiting)) / 1e9
        except (OSError, ValueError):
            # A kernel without these statistics.
            return time.clock_gettime(self._clock)


def _p99(latencies: deque[float]) -> float:
    ordered = sorted(latencies)
    return ordered[len(ordered) * 99 // 100] if ordered else 0.0
