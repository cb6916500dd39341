"""The versions in shadow of one use case, and what requests need to know of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING

from app.serving.loaded_model import LoadedModel
from app.serving.shadow_limits import LatencyLimit
from app.serving.shadow_scorer import NOT_NUMBERS, Row, Scored, ScoringFailed, ShadowScorer, not_answered
from dosel.model.predictor import Prediction, ScikitLearnDecides
from dosel.monitor.canary import Draw, drawn
from dosel.usecases import Number, Shadow, UseCase

if TYPE_CHECKING:
    # Importing it takes seconds, in which the app can already answer /healthz.
    from dosel.registry.shadows import ShadowRecord


@dataclass(eq=False)
class RunningShadow:
    """A version that answers in shadow. `fault` says why it must not go on; "" while it may.

    `dropped_before` counts the rows of the slot that were dropped before this version was loaded.
    """

    shadow: "ShadowRecord"
    loaded: LoadedModel
    dropped_before: int = 0
    answered: int = 0
    fault: str = ""
    limit: LatencyLimit = field(default_factory=LatencyLimit)

    def answer(
        self, numbers: Sequence[float], codes: Sequence[int], champion_ms: float | None = None, wait: bool = True
    ) -> "tuple[Prediction, float] | None":
        """The answer for one row and its milliseconds of processor time; None if the version has a fault.

        Raises:
            ScikitLearnDecides: as `Predictor.one`.
        """
        if self.fault:
            return None
        began = time.thread_time()
        try:
            found = self.loaded.predictor.one(numbers, codes, wait)
        except ScikitLearnDecides:
            raise
        except Exception as error:  # noqa: BLE001  a model may raise whatever it likes
            self.fault = not_answered(error)
            return None
        # Processor time: waiting for others says nothing about the version.
        took = (time.thread_time() - began) * 1000
        if not all(isfinite(p) for p in found.probabilities.values()):
            self.fault = NOT_NUMBERS
            return None
        self.answered += 1
        if slow := self.limit.add(took, champion_ms):
            self.fault = slow
        return found, took

    def answer_all(self, scorer: ShadowScorer, rows: Sequence[Row]) -> Scored | None:
        """The answers for rows, as `ShadowScorer.score`; None if the version has a fault."""
        if self.fault:
            return None
        try:
            found = scorer.score(self.loaded, self.shadow.number, rows)
        except ScoringFailed as error:
            self.fault = str(error)
            return None
        self.answered += len(rows)
        # Requests of a canary may have found a fault meanwhile, which stays.
        if slow := self.limit.add(found.one_ms, rows[0][1]):
            self.fault = slow
        return None if self.fault else found


@dataclass(frozen=True)
class Canary:
    """The one-row requests that a challenger answers: those with a share of the values of one feature."""

    running: RunningShadow
    draw: Draw
    place: int
    is_number: bool

    @classmethod
    def of(cls, use_case: UseCase, declared: Shadow, running: RunningShadow) -> "Canary | None":
        """The canary that a use case declares, or None."""
        draw = Draw.of(use_case, declared, running.shadow)
        if draw is None:
            return None
        is_number = isinstance(draw.feature, Number)
        place = (use_case.numbers if is_number else use_case.categories).index(draw.feature)
        return cls(running, draw, place, is_number)

    def takes(self, numbers: Sequence[float], codes: Sequence[int]) -> bool:
        """Whether the challenger answers this row; a row without the value stays with the champion."""
        return self.draw.takes(numbers[self.place] if self.is_number else codes[self.place])


@dataclass(frozen=True)
class Plan:
    """What happens to a row that the champion is asked for, while a version is in shadow. It never changes.

    Attributes:
        champion: the version that the shadows are compared with.
        sample: the share of its answers that go to the shadows.
    """

    champion: int
    sample: float
    running: tuple[RunningShadow, ...]
    canary: Canary | None = None

    def answer(
        self, champion: LoadedModel, numbers: Sequence[float], codes: Sequence[int], wait: bool = True
    ) -> "tuple[LoadedModel, Prediction, float]":
        """The model that answers a row, its answer, and its milliseconds of processor time.

        Raises:
            ScikitLearnDecides: as `Predictor.one`.
        """
        if (canary := self.canary_for(champion, numbers, codes)) is not None:
            found = canary.running.answer(numbers, codes, wait=wait)
            if found is not None:
                return canary.running.loaded, *found
        began = time.thread_time()
        prediction = champion.predictor.one(numbers, codes, wait)
        return champion, prediction, (time.thread_time() - began) * 1000

    def canary_for(self, champion: LoadedModel, numbers: Sequence[float], codes: Sequence[int]) -> Canary | None:
        """The canary whose challenger answers this row, if any does."""
        canary = self.canary
        mine = canary is not None and champion.version.version == self.champion and canary.takes(numbers, codes)
        return canary if mine else None

    def samples(self, version: int, request_id: str, row_no: int) -> bool:
        """Whether an answer goes to the shadows; all workers agree."""
        return version == self.champion and (self.sample >= 1 or drawn(f"{request_id} {row_no}") < self.sample)


@dataclass(eq=False)
class ShadowSlot:
    """The shadows of a use case. One thread writes; requests read `plan` without a lock.

    Attributes:
        plan: None while no version in shadow is loaded.
        open: the shadows that the ledger has open.
        running: the loaded ones, by number.
        waiting_for: what keeps the others from being loaded, by number.
        ends: reasons with which shadows have to end, by number, until the ledger has them.
        answered: answers of all versions in shadow since the start.
        dropped: sampled rows that no shadow answered, because there was no time.
    """

    use_case: UseCase
    plan: Plan | None = None
    open: "tuple[ShadowRecord, ...]" = ()
    running: dict[int, RunningShadow] = field(default_factory=dict)
    waiting_for: dict[int, str] = field(default_factory=dict)
    ends: dict[int, str] = field(default_factory=dict)
    answered: int = 0
    dropped: int = 0

    def dropped_since_loaded(self, number: int) -> int:
        """The rows that were dropped since a version was loaded; 0 if it is not."""
        running = self.running.get(number)
        return self.dropped - running.dropped_before if running else 0

    @property
    def declared(self) -> Shadow:
        assert self.use_case.gate.shadow is not None
        return self.use_case.gate.shadow
