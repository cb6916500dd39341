"""Shadowing: other versions answer the rows that the champion answers, off the request path."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from app.serving.answer_writer import AnswerWriter
from app.serving.follower import ModelFollower
from app.serving.loaded_model import LoadedModel
from app.serving.prediction_log import LogEntry
from app.serving.shadow_answers import ShadowAnswers
from app.serving.shadow_decider import ShadowDecider
from app.serving.shadow_follower import ShadowFollower
from app.serving.shadow_scorer import ShadowScorer
from app.serving.shadow_slot import ShadowSlot
from dosel.settings import Settings
from dosel.usecases import UseCase

if TYPE_CHECKING:
    # Importing these takes a second, in which the app can already answer /healthz.
    from sqlalchemy import Engine


class Shadowing:
    """The versions in shadow of all use cases, and the threads that load, ask and judge them."""

    def __init__(
        self,
        settings: Settings,
        follower: ModelFollower,
        use_cases: Sequence[UseCase],
        writer: AnswerWriter,
        scorer: ShadowScorer,
    ) -> None:
        self._settings = settings
        self._slots = {use_case.name: ShadowSlot(use_case) for use_case in use_cases}
        declared = {name: slot for name, slot in self._slots.items() if slot.use_case.gate.shadow is not None}
        self._declared = list(declared.values())
        self._answers = ShadowAnswers(settings.shadow_cpu, scorer, writer.in_shadow)
        self._follower = ShadowFollower(settings, follower, self._declared, scorer.release)
        self._decider = ShadowDecider(
            follower, declared, lambda: self.engine, self._answers.flush, self._follower.poll_soon
        )
        follower.ready = self._ready

    def start(self) -> None:
        """Start the threads, from the thread that answers requests."""
        if self._declared:
            self._answers.start()
            self._follower.start()
            self._decider.start()

    def stop(self) -> None:
        """End the threads, and write the answers that there are."""
        if self._declared:
            self._decider.stop()
            self._follower.stop()
            self._answers.stop()

    def slot(self, use_case: UseCase) -> ShadowSlot:
        return self._slots[use_case.name]

    @property
    def slots(self) -> list[ShadowSlot]:
        """The slots of the use cases that declare a shadow."""
        return self._declared

    @property
    def waiting(self) -> int:
        """The number of rows that wait for an answer in shadow."""
        return self._answers.waiting

    def offer(self, slot: ShadowSlot, entry: LogEntry, champion_ms: float | None = None) -> None:
        """Have an answered row of the champion answered in shadow, too, if it is sampled; never blocks."""
        self._answers.offer(slot, entry, champion_ms)

    def judge_soon(self, use_case: UseCase) -> None:
        """Have the open shadows judged: there are new labels."""
        self._decider.wake(use_case.name)

    @cached_property
    def engine(self) -> "Engine":
        """The data store."""
        from dosel.db.engine import connect

        return connect(self._settings.warehouse_url)

    def _ready(self, use_case: UseCase, number: int) -> LoadedModel | None:
        """The loaded version of that number, if it answers in shadow."""
        running = tuple(self._slots[use_case.name].running.values())
        return next((one.loaded for one in running if one.shadow.version == number and not one.fault), None)
