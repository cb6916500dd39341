"""Changes Production repeatedly under load. No request may fail or be answered by a version not in Production.

    make soak-serving            a thousand swaps; SWAPS=50 for a short one

Each swap goes through the promotion ledger, as a promotion or rollback does. Every other one is announced by
`POST /warmup`; the others are found by polling.
"""

import json
import sys
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from benchmarks.installation import Installation, installation, resident_mb, say, wait_until
from benchmarks.serving import uvicorn
from dosel.usecases.covertype import COVERTYPE

SWAPS = 1_000
RATE = 50.0
SENDERS = 2
GRACE_SECONDS = 2.0
"""Seconds after a promotion in which the version before may still answer."""

FORESTS = tuple((trees, 8) for trees in (5, 6, 7, 8, 9))
"""More versions than fit into the grace period, so that wrong answers are detected."""


@dataclass
class Soak:
    """The answers, and the version in Production over time; times are those of `time.monotonic`."""

    answers: list[tuple[float, float, int]] = field(default_factory=list)
    moves: list[tuple[float, float, int]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def send(self, url: str) -> None:
        """Send `RATE / SENDERS` requests per second until stopped."""
        with httpx.Client(timeout=10) as client:
            due = time.monotonic()
            while not self.stopped.is_set():
                due += SENDERS / RATE
                sent = time.monotonic()
                try:
                    response = client.post(f"{url}/predict", json=COVERTYPE.example)
                    version = int(response.raise_for_status().json()["model"]["version"])
                    self.answers.append((sent, time.monotonic(), version))
                except httpx.HTTPError as error:
                    self.failed.append(f"{type(error).__name__}: {error}")
                self.stopped.wait(max(0.0, due - time.monotonic()))

    def wrong(self) -> int:
        """Answers by a version that was not in Production at that time or within the grace period before."""
        begun, done = [move[0] for move in self.moves], [move[1] for move in self.moves]
        count = 0
        for sent, received, version in self.answers:
            # The versions from the last move before the grace period to the last move begun before the answer.
            first = max(0, bisect_right(done, sent - GRACE_SECONDS) - 1)
            last = bisect_left(begun, received)
            count += version not in {move[2] for move in self.moves[first:last]}
        return count


@contextmanager
def sending(soak: Soak, url: str) -> Iterator[Soak]:
    """Send `RATE` requests per second until the end of the block."""
    senders = [threading.Thread(target=soak.send, args=(url,)) for _ in range(SENDERS)]
    for sender in senders:
        sender.start()
    try:
        yield soak
    finally:
        soak.stopped.set()
        for sender in senders:
            sender.join()


def main() -> None:
    swaps = int(sys.argv[1]) if len(sys.argv) > 1 else SWAPS
    with installation(*FORESTS) as here:
        result = soak(here, swaps)
    say(f"RESULT {json.dumps(result)}")
    sys.exit(bool(result["failed"] or result["wrong_version"]))


def soak(here: Installation, swaps: int) -> dict[str, float]:
    with uvicorn(here, "app.main:create_app", "/readyz") as (url, running, _):
        found = Soak(moves=[(float("-inf"), float("-inf"), here.versions[0])])
        # Memory is measured after each version has answered, since loaded libraries stay loaded.
        settled_at, settled, pickups = min(swaps // 2, 100), 0.0, []
        with sending(found, url), httpx.Client(timeout=30) as client:
            for number in range(1, swaps + 1):
                version = here.versions[number % len(here.versions)]
                began = time.monotonic()
                here.promote(version, f"swap {number}")
                promoted = time.monotonic()
                found.moves.append((began, promoted, version))
                if number % 2:
                    client.post(f"{url}/warmup").raise_for_status()
                wait_until(lambda v=version: answering(client, url) == v, 20, lambda: "the next version")  # type: ignore[misc]
                pickups.append(time.monotonic() - promoted)
                if number == settled_at:
                    settled = resident_mb(running)
                if number % 50 == 0:
                    say(f"{number:5} swaps, {len(found.answers)} answers, {resident_mb(running):.0f} MB")
        grown = resident_mb(running) - settled
    for failure in found.failed[:5]:
        say(f"failed: {failure}")
    waits = sorted(received - sent for sent, received, _ in found.answers)
    return {
        "swaps": swaps,
        "requests": len(found.answers) + len(found.failed),
        "failed": len(found.failed),
        "wrong_version": found.wrong(),
        "rss_growth_mb": round(grown, 1),
        "slowest_pickup_s": round(max(pickups), 2),
        "p50_ms": round(1000 * waits[len(waits) // 2], 2),
        "p99_ms": round(1000 * waits[len(waits) * 99 // 100], 1),
    }


def answering(client: httpx.Client, url: str) -> int:
    response = client.post(f"{url}/predict", json=COVERTYPE.example).raise_for_status()
    return int(response.json()["model"]["version"])


if __name__ == "__main__":
    main()
