"""Judges the open shadows soon after new labels, in a thread of its own."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.serving.follower import ModelFollower
from app.serving.shadow_slot import ShadowSlot
from dosel.errors import DoselError

if TYPE_CHECKING:
    # Importing it takes a second, in which the app can already answer /healthz.
    from sqlalchemy import Engine

EVERY_SECONDS = 30.0
"""Pause between two decisions without new labels; a decision also notices that a deadline has passed."""

AGAIN_SECONDS = 1.5
"""Pause after a decision on new labels: the answers of other workers are written by then."""

BEHIND_SECONDS = 30.0
"""How long after new labels the pause stays short, if answers in shadow are not written yet."""

RETRY_SECONDS = 5.0

LOOK_SECONDS = 0.5
"""Pause between two checks of what is due."""

SHORTEST_PAUSE = 0.1
"""Labels that come in such a short time are judged together."""

CHANGES = frozenset({"promoted", "rolled back"})
"""Outcomes after which another version is in Production."""

log = logging.getLogger("uvicorn.error")


class ShadowDecider:
    """Calls `decide` for the use cases that declare a shadow.

    Args:
        slots: by the use case's name.
        flush: writes the answers in shadow that wait, and returns whether none is left.
        on_end: called once a shadow has ended.
    """

    def __init__(
        self,
        follower: ModelFollower,
        slots: Mapping[str, ShadowSlot],
        open_engine: "Callable[[], Engine]",
        flush: Callable[[], bool],
        on_end: Callable[[], None],
    ) -> None:
        self._follower = follower
        self._slots = slots
        self._open_engine = open_engine
        self._flush = flush
        self._on_end = on_end
        self._woken_for: set[str] = set()
        self._last = {name: _Last() for name in slots}
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="shadow decisions", daemon=True)

    def start(self) -> None:
        if self._slots:
            self._thread.start()

    def stop(self) -> None:
        """End the thread, without waiting for a decision that waits for the data store."""
        self._stopped.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1)

    def wake(self, use_case: str) -> None:
        """Decide soon: a use case has new labels."""
        if use_case in self._slots:
            self._woken_for.add(use_case)
            self._woken.set()

    def _watch(self) -> None:
        while not self._stopped.wait(SHORTEST_PAUSE):
            self._woken.clear()
            for name, slot in self._slots.items():
                self._look(slot, self._last[name])
            self._woken.wait(LOOK_SECONDS)

    def _look(self, slot: ShadowSlot, last: "_Last") -> None:
        """Decide if there is something new, or if it is time."""
        name, champion = slot.use_case.name, self._follower.loaded(slot.use_case)
        # Without an open shadow, too: after a change of Production, a decision starts the control.
        state = champion.version.version if champion else None, tuple(shadow.number for shadow in slot.open)
        is_new = name in self._woken_for or state != last.state
        if champion is None or not (is_new or time.monotonic() >= last.due):
            return
        # Before the decision: labels that come while it runs wake the thread for the next one.
        self._woken_for.discard(name)
        last.state = state
        now = time.monotonic()
        last.new_at = now if is_new else last.new_at
        complete = self._decide(slot)
        if complete is None:
            pause = RETRY_SECONDS
        elif is_new or (not complete and now < last.new_at + BEHIND_SECONDS):
            pause = AGAIN_SECONDS
        else:
            pause = EVERY_SECONDS
        last.due = time.monotonic() + pause

    def _decide(self, slot: ShadowSlot) -> bool | None:
        """Decide, and follow what was decided; return whether all answers in shadow were there, None after an error."""
        name = slot.use_case.name
        try:
            from dosel.monitor.shadowing import decide

            complete = self._flush()
            ends = decide(slot.use_case, self._follower.registry(), self._open_engine())
            for end in ends:
                log.info("%s: a shadow ended: %s (%s)", name, end.outcome, end.reason)
            if any(end.outcome in CHANGES for end in ends):
                self._follower.poll_now([slot.use_case])
            if ends:
                self._on_end()
        except Exception as error:  # noqa: BLE001  this thread must live on
            reason = str(error) if isinstance(error, DoselError) else f"{type(error).__name__}: {error}"
            log.warning("%s: the shadow cannot be judged now: %s", name, reason)
            return None
        return complete


@dataclass
class _Last:
    """The champion and the open shadows at the last decision, when there was news, and when the next one is due."""

    state: tuple[int | None, tuple[int, ...]] | None = None
    new_at: float = 0.0
    due: float = 0.0
