"""The process that scores rows in shadow: what it answers, and what ends with it."""

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from app.serving import shadow_scorer
from app.serving.shadow_scorer import DirectScorer, ScoringFailed, ScoringProcess
from dosel.model.predictor import Predictor
from dosel.usecases.covertype import COVERTYPE
from tests.contract.predictors import Answers, Changed, Ends, Loops, Raises
from tests.unit.test_predictor import CLASSIFIERS, fitted, numbers_and_codes, table

ROWS = ([[1.0], [2.0]], [[0], [1]])


def loaded(predictor: Any, version: int = 2) -> Any:
    return SimpleNamespace(predictor=predictor, manifest="m", version=SimpleNamespace(name="vf", version=version))


@pytest.fixture
def scorer() -> Iterator[ScoringProcess]:
    made = ScoringProcess()
    yield made
    made.close()


def child() -> psutil.Process:
    [process] = [p for p in psutil.Process().children() if "app.serving.shadow_scorer" in p.cmdline()]
    return process


@pytest.mark.parametrize("backend", ["onnx", "scikit-learn"])
def test_the_process_gives_the_scores_of_the_predictor(backend: str, scorer: ScoringProcess) -> None:
    reason = "" if backend == "onnx" else "a test"
    predictor = Predictor(COVERTYPE, fitted(CLASSIFIERS["forest"]), fallback_reason=reason)
    assert predictor.backend == backend
    numbers, codes = numbers_and_codes(table(30, seed=3))
    here, there = (kind.score(loaded(predictor), numbers.tolist(), codes.tolist()) for kind in (DirectScorer(), scorer))
    assert (there.classes, there.probabilities) == (here.classes, here.probabilities)
    assert there.one_ms > 0
    assert there.seconds > 0


def test_the_process_runs_only_while_a_processor_is_idle(scorer: ScoringProcess) -> None:
    scorer.score(loaded(Answers()), *ROWS)
    assert os.sched_getscheduler(child().pid) == os.SCHED_IDLE


def test_rows_are_scored_after_a_kill(scorer: ScoringProcess) -> None:
    for _ in range(2):
        assert scorer.score(loaded(Answers()), *ROWS).classes == [0, 1]
        child().kill()


@pytest.mark.parametrize(
    ("predictor", "reason"),
    [
        (Ends(), r"the process that answers in shadow ended 2 times \(exit code 3"),
        (Loops(), r"more than 0\.1 s of processor time for 2 rows"),
        (Raises(), r"it could not answer a row \(ValueError\)"),
        (Changed(), r"cannot get it \(model\.skops was changed\)"),
    ],
    ids=["ends", "loops", "raises", "changed"],
)
def test_a_version_that_fails_is_named_and_others_are_scored(
    scorer: ScoringProcess, monkeypatch: pytest.MonkeyPatch, predictor: Any, reason: str
) -> None:
    monkeypatch.setattr(shadow_scorer, "CPU_SECONDS", 0.1)
    with pytest.raises(ScoringFailed, match=reason):
        scorer.score(loaded(predictor), *ROWS)
    assert scorer.score(loaded(Answers(), version=3), *ROWS).classes == [0, 1]


def test_released_memory_is_that_of_the_process(scorer: ScoringProcess) -> None:
    scorer.score(loaded(Answers()), *ROWS)
    first = child()
    scorer.release()
    assert not first.is_running()
    scorer.score(loaded(Answers()), *ROWS)
    assert child() != first


def test_nothing_starts_after_the_end(scorer: ScoringProcess) -> None:
    scorer.close()
    with pytest.raises(ScoringFailed, match="the API stops"):
        scorer.score(loaded(Answers()), *ROWS)
