"""Has rows answered in shadow, from one thread that gives way to requests."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from app.serving.prediction_log import LogEntry
from app.serving.shadow_limits import BusyThread
from app.serving.shadow_scorer import Row, ShadowScorer, answers_of
from app.serving.shadow_slot import ShadowSlot
from app.serving.write_queue import WriteQueue

WAITING = 1_000
"""Rows that may wait; further rows are dropped."""

BLOCK = 256
"""Most rows that are answered together, between two pauses."""

UNWRITTEN = 1_000
"""Blocks of answers that may wait while the data store cannot be reached; further blocks are dropped."""

IDLE_SECONDS = 0.2
"""Pause while no row waits, or while requests need the processor. The rows of a pause are answered together: each
exchange with the scoring process takes the interpreter's lock several times, whatever the number of rows."""

FLUSH_SECONDS = 0.5
"""How long `flush` waits for rows to be answered."""


class Waiting(NamedTuple):
    """A row, and the slot with the versions that shall answer it."""

    slot: ShadowSlot
    row: Row


class ShadowAnswers:
    """The queue of rows for the versions in shadow.

    Rows are dropped and counted if the queue is full, or while the thread that answers requests is busy.

    Args:
        cpu: the largest share of one processor core that the answers take.
        scorer: scores the rows.
        write: stores all blocks of answers, or none; see `app.serving.answer_writer`.
    """

    def __init__(self, cpu: float, scorer: ShadowScorer, write: Callable[[list[bytes]], None]) -> None:
        self._cpu = cpu
        self._scorer = scorer
        self._rows: deque[Waiting] = deque()
        self._scoring = False
        self._unwritten: WriteQueue[bytes] = WriteQueue("blocks of answers in shadow", UNWRITTEN, write, _name)
        self._requests: BusyThread | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shadow answers", daemon=True)

    def start(self) -> None:
        """Start the threads. The calling thread is the one that answers requests."""
        self._requests = BusyThread(threading.current_thread())
        self._unwritten.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop, and write the answers that there are."""
        self._stopped.set()
        self._scorer.close()
        self._thread.join(timeout=1)
        self._unwritten.stop()

    @property
    def waiting(self) -> int:
        """The number of rows that wait."""
        return len(self._rows)

    def offer(self, slot: ShadowSlot, entry: LogEntry, champion_ms: float | None) -> None:
        """Have a row answered in shadow, if it is sampled and the champion answered it; never blocks."""
        plan = slot.plan
        if plan is None or not plan.samples(entry.version, entry.request_id, entry.row_no):
            return
        if len(self._rows) < WAITING:
            self._rows.append(Waiting(slot, (entry, champion_ms)))
        else:
            slot.dropped += 1

    def flush(self) -> bool:
        """Answer the rows that wait, for at most half a second, and write all answers; return whether none is left."""
        deadline = time.monotonic() + FLUSH_SECONDS
        while not self._is_done() and time.monotonic() < deadline and not self._stopped.wait(IDLE_SECONDS / 2):
            pass
        done = self._is_done()
        return self._unwritten.flush() and done

    def _is_done(self) -> bool:
        return not (self._rows or self._scoring)

    def _run(self) -> None:
        # The thread keeps its priority: with a lower one, it would hold the interpreter's lock while it waits for a
        # processor.
        pause = IDLE_SECONDS
        while not self._stopped.wait(pause):
            pause = self._work()

    def _work(self) -> float:
        """Answer a few rows; return the seconds to pause."""
        if self._requests is not None and self._requests.is_busy():
            self._drop()
            return IDLE_SECONDS
        # Before rows are taken from the queue: they are not answered yet.
        self._scoring, began = True, time.thread_time()
        try:
            used = self._answer(self._block()) + time.thread_time() - began
        finally:
            self._scoring = False
        # So that the answers never take more than their share.
        pause = used * (1 / self._cpu - 1)
        return pause if self._rows else max(pause, IDLE_SECONDS)

    def _block(self) -> list[Waiting]:
        """Take the first rows that wait, as far as they are for the same shadows."""
        rows: list[Waiting] = []
        while self._rows and len(rows) < BLOCK and (not rows or self._rows[0].slot is rows[0].slot):
            rows.append(self._rows.popleft())
        return rows

    def _drop(self) -> None:
        while self._rows:
            self._rows.popleft().slot.dropped += 1

    def _answer(self, waiting: list[Waiting]) -> float:
        """Answer rows; return the processor time of the scorer, in seconds."""
        if not waiting or (plan := waiting[0].slot.plan) is None:
            # The shadow has ended meanwhile.
            return 0.0
        slot, used = waiting[0].slot, 0.0
        rows = [one.row for one in waiting if one.row[0].version == plan.champion]
        for running in plan.running if rows else ():
            found = running.answer_all(self._scorer, rows)
            if found is not None and not self._stopped.is_set():
                slot.answered += len(rows)
                used += found.seconds
                self._unwritten.offer(found.answers)
        return used


def _name(block: bytes) -> str:
    answers = answers_of(block)
    return f"{answers[0].request_id} row {answers[0].row_no} and {len(answers) - 1} more"
