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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection

import httpx

from benchmarks.installation import Installation, installation, resident_mb, say, wait_until
from benchmarks.serving import uvicorn
from dosel.usecases.covertype import COVERTYPE

SPAWN = get_context("spawn")
SWAPS = 1_000
RATE = 50.0
SENDERS = 2
REST_SECONDS = 30.0
"""Seconds of requests before the first swap, to compare with."""

GRACE_SECONDS = 2.0
"""Seconds after a promotion in which the version before may still answer."""

FORESTS = tuple((trees, 8) for trees in (5, 6, 7, 8, 9))
"""More versions than fit into the grace period, so that wrong answers are detected."""


@dataclass
class Answers:
    """What requests got: the times sent and received, and the version; and what failed."""

    answers: list[tuple[float, float, int]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def send(self, url: str, stopped: threading.Event) -> None:
        """Send `RATE / SENDERS` requests per second until stopped."""
        with httpx.Client(timeout=10) as client:
            due = time.monotonic()
            while not stopped.is_set():
                due += SENDERS / RATE
                sent = time.monotonic()
                try:
                    response = client.post(f"{url}/predict", json=COVERTYPE.example)
                    version = int(response.raise_for_status().json()["model"]["version"])
                    self.answers.append((sent, time.monotonic(), version))
                except httpx.HTTPError as error:
                    self.failed.append(f"{type(error).__name__}: {error}")
                stopped.wait(max(0.0, due - time.monotonic()))

    def wrong(self, moves: Sequence[tuple[float, float, int]]) -> int:
        """Answers by a version that was not in Production at that time or within the grace period before.

        Args:
            moves: when each promotion began and was done, and its version.
        """
        begun, done = [move[0] for move in moves], [move[1] for move in moves]
        count = 0
        for sent, received, version in self.answers:
            # The versions from the last move before the grace period to the last move begun before the answer.
            first = max(0, bisect_right(done, sent - GRACE_SECONDS) - 1)
            last = bisect_left(begun, received)
            count += version not in {move[2] for move in moves[first:last]}
        return count

    def quantile_ms(self, share: float, after: float = float("-inf"), before: float = float("inf")) -> float:
        """The quantile of the waits for answers to requests sent in a period."""
        waits = sorted(received - sent for sent, received, _ in self.answers if after <= sent < before)
        return 1000 * waits[int(len(waits) * share)]


def send_until_stopped(url: str, stop: Connection) -> None:
    """Send requests until a message arrives, and answer it with what they got."""
    found, stopped = Answers(), threading.Event()
    senders = [threading.Thread(target=found.send, args=(url, stopped)) for _ in range(SENDERS)]
    for sender in senders:
        sender.start()
    stop.recv()
    stopped.set()
    for sender in senders:
        sender.join()
    stop.send(found)


@contextmanager
def sending(found: Answers, url: str) -> Iterator[Answers]:
    """Send `RATE` requests per second until the end of the block, which adds to `found`.

    The requests come from a process of their own: beside promotions in this one, they would wait for its interpreter
    lock.
    """
    ours, theirs = SPAWN.Pipe()
    client = SPAWN.Process(target=send_until_stopped, args=(url, theirs), daemon=True)
    client.start()
    try:
        yield found
    finally:
        ours.send(None)
        sent: Answers = ours.recv()
        found.answers += sent.answers
        found.failed += sent.failed
        client.join()


def main() -> None:
    swaps = int(sys.argv[1]) if len(sys.argv) > 1 else SWAPS
    with installation(*FORESTS) as here:
        result = soak(here, swaps)
    say(f"RESULT {json.dumps(result)}")
    sys.exit(bool(result["failed"] or result["wrong_version"]))


def soak(here: Installation, swaps: int) -> dict[str, float]:
    with uvicorn(here, "app.main:create_app", "/readyz") as (url, running, _):
        found, moves = Answers(), [(float("-inf"), float("-inf"), here.versions[0])]
        # Memory is measured after each version has answered, since loaded libraries stay loaded.
        settled_at, settled, pickups = min(swaps // 2, 100), 0.0, []
        with sending(found, url), httpx.Client(timeout=30) as client:
            time.sleep(REST_SECONDS)
            first = time.monotonic()
            for number in range(1, swaps + 1):
                version = here.versions[number % len(here.versions)]
                began = time.monotonic()
                here.promote(version, f"swap {number}")
                promoted = time.monotonic()
                moves.append((began, promoted, version))
                if number % 2:
                    client.post(f"{url}/warmup").raise_for_status()
                wait_until(lambda v=version: answering(client, url) == v, 20, lambda: "the next version")  # type: ignore[misc]
                pickups.append(time.monotonic() - promoted)
                if number == settled_at:
                    settled = resident_mb(running)
                if number % 50 == 0:
                    say(f"{number:5} swaps, {resident_mb(running):.0f} MB")
            last = time.monotonic()
        grown = resident_mb(running) - settled
    for failure in found.failed[:5]:
        say(f"failed: {failure}")
    rest, during = found.quantile_ms(0.99, before=first), found.quantile_ms(0.99, first, last)
    return {
        "swaps": swaps,
        "requests": len(found.answers) + len(found.failed),
        "failed": len(found.failed),
        "wrong_version": found.wrong(moves),
        "rss_growth_mb": round(grown, 1),
        "slowest_pickup_s": round(max(pickups), 2),
        "p50_ms": round(found.quantile_ms(0.5, first, last), 2),
        "p99_ms": round(during, 1),
        "p99_without_swaps_ms": round(rest, 1),
        "p99_ratio": round(during / rest, 2),
    }


def answering(client: httpx.Client, url: str) -> int:
    response = client.post(f"{url}/predict", json=COVERTYPE.example).raise_for_status()
    return int(response.json()["model"]["version"])


if __name__ == "__main__":
    main()
