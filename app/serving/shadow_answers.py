"""Has rows answered in shadow, from one thread that gives way to requests."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from app.serving.prediction_log import LogEntry
from app.serving.shadow_limits import BusyThread, give_way
from app.serving.shadow_scorer import ShadowScorer
from app.serving.shadow_slot import RunningShadow, ShadowSlot
from app.serving.write_queue import WriteQueue

if TYPE_CHECKING:
    from dosel.warehouse.shadow_answers import ShadowAnswer

WAITING = 1_000
"""Rows that may wait; further rows are dropped."""

UNWRITTEN = 10_000
"""Answers that may wait to be written while the data store cannot be reached; further answers are dropped."""

BLOCK = 64
"""Most rows that are answered together, between two pauses: a request may have to wait for them."""

IDLE_SECONDS = 0.05
"""Pause while no row waits, or while requests need the processor. The rows of a pause are answered together."""

FLUSH_SECONDS = 0.5
"""How long `flush` waits for rows to be answered."""


class Row(NamedTuple):
    """A row that the champion has answered, and the milliseconds of processor time of that, if known."""

    slot: ShadowSlot
    entry: LogEntry
    champion_ms: float | None


class ShadowAnswers:
    """The queue of rows for the versions in shadow.

    Rows are dropped and counted if the queue is full, or while the thread that answers requests is busy.

    Args:
        cpu: the largest share of one processor core that the answers take.
        scorer: scores the rows.
        write: stores all answers of a chunk, or none; see `app.serving.answer_writer`.
    """

    def __init__(self, cpu: float, scorer: ShadowScorer, write: "Callable[[list[ShadowAnswer]], None]") -> None:
        self._cpu = cpu
        self._scorer = scorer
        self._rows: deque[Row] = deque()
        self._unwritten: WriteQueue[ShadowAnswer] = WriteQueue("answers in shadow", UNWRITTEN, write, _name)
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
            self._rows.append(Row(slot, entry, champion_ms))
        else:
            slot.dropped += 1

    def flush(self) -> bool:
        """Answer the rows that wait, for at most half a second, and write all answers; return whether none is left."""
        deadline = time.monotonic() + FLUSH_SECONDS
        while self._rows and time.monotonic() < deadline and not self._stopped.wait(IDLE_SECONDS / 2):
            pass
        return self._unwritten.flush() and not self._rows

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
        began = time.thread_time()
        used = self._answer(self._block()) + time.thread_time() - began
        # So that the answers never take more than their share.
        pause = used * (1 / self._cpu - 1)
        return pause if self._rows else max(pause, IDLE_SECONDS)

    def _block(self) -> list[Row]:
        """Take the first rows that wait, as far as they are for the same shadows."""
        rows: list[Row] = []
        while self._rows and len(rows) < BLOCK and (not rows or self._rows[0].slot is rows[0].slot):
            rows.append(self._rows.popleft())
        return rows

    def _drop(self) -> None:
        while self._rows:
            self._rows.popleft().slot.dropped += 1

    def _answer(self, rows: list[Row]) -> float:
        """Answer rows; return the processor time of the scorer, in seconds."""
        if not rows or (plan := rows[0].slot.plan) is None:
            # The shadow has ended meanwhile.
            return 0.0
        rows = [row for row in rows if row.entry.version == plan.champion]
        if not rows:
            return 0.0
        slot, used = rows[0].slot, 0.0
        numbers, codes = [row.entry.numbers for row in rows], [row.entry.codes for row in rows]
        for running in plan.running:
            found = running.answer_all(self._scorer, numbers, codes, rows[0].champion_ms)
            if found is None or self._stopped.is_set():
                continue
            slot.answered += len(rows)
            used += found.seconds
            for place, row in enumerate(rows):
                give_way()
                answer = found.classes[place], found.probabilities[place]
                self._unwritten.offer(_record(running, row, *answer, found.one_ms))
        return used


def _record(running: RunningShadow, row: Row, answered: int, probabilities: str, took: float) -> "ShadowAnswer":
    # Imported here: it takes a second, in which the app can already answer /healthz.
    from dosel.warehouse.shadow_answers import ShadowAnswer

    shadow, entry = running.shadow, row.entry
    return ShadowAnswer(
        shadow.model,
        shadow.number,
        entry.request_id,
        entry.row_no,
        entry.at,
        probabilities,
        answered,
        took,
        row.champion_ms,
    )


def _name(answer: "ShadowAnswer") -> str:
    return f"{answer.request_id} row {answer.row_no}"
