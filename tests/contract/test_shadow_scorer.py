"""The process that scores rows in shadow: what it answers, and what ends with it."""

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from app.serving import shadow_scorer
from app.serving.prediction_log import LogEntry
from app.serving.shadow_scorer import DirectScorer, Row, Scored, ScoringFailed, ScoringProcess, answers_of
from dosel.model.predictor import Predictor
from dosel.usecases.covertype import COVERTYPE
from tests.contract.predictors import Answers, Changed, Ends, Loops, Raises
from tests.unit.test_predictor import CLASSIFIERS, fitted, numbers_and_codes, table


def row(numbers: list[float], codes: list[int], row_no: int = 1, champion_ms: float | None = 0.5) -> Row:
    return LogEntry("r-1", None, 7.0, COVERTYPE.name, "vf", 1, numbers, codes, b"{}", row_no, 2), champion_ms


ROWS = [row([1.0], [0]), row([2.0], [1], 2, None)]


def classes(found: Scored) -> list[int]:
    return [answer.answered for answer in answers_of(found.answers)]


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
    rows = [row(*values) for values in zip(numbers.tolist(), codes.tolist(), strict=True)]
    here, there = (kind.score(loaded(predictor), 1, rows) for kind in (DirectScorer(), scorer))
    assert classes(there) == classes(here)
    assert [a.probabilities for a in answers_of(there.answers)] == [a.probabilities for a in answers_of(here.answers)]
    assert there.one_ms > 0
    assert there.seconds > 0


def test_each_answer_names_its_row_and_its_shadow(scorer: ScoringProcess) -> None:
    answers = answers_of(scorer.score(loaded(Answers()), 4, ROWS).answers)
    assert [(a.model, a.number, a.request_id, a.row_no, a.at, a.champion_latency) for a in answers] == [
        ("vf", 4, "r-1", 1, 7.0, 0.5),
        ("vf", 4, "r-1", 2, 7.0, None),
    ]


def test_the_process_runs_only_while_a_processor_is_idle(scorer: ScoringProcess) -> None:
    scorer.score(loaded(Answers()), 1, ROWS)
    assert os.sched_getscheduler(child().pid) == os.SCHED_IDLE


def test_rows_are_scored_after_a_kill(scorer: ScoringProcess) -> None:
    for _ in range(2):
        assert classes(scorer.score(loaded(Answers()), 1, ROWS)) == [0, 1]
        child().kill()


@pytest.mark.parametrize(
    ("predictor", "reason"),
    [
        (Ends(), r"the process that answers in shadow ended 2 times \(exit code 3"),
        (Loops(), r"more than 0\.1 s of processor time for 2 rows"),
        (Raises(), r"it could not answer a row \(ValueError\)"),
        (Changed(), r"cannot be sent to the process that answers in shadow \(model\.skops was changed\)"),
    ],
    ids=["ends", "loops", "raises", "changed"],
)
def test_a_version_that_fails_is_named_and_others_are_scored(
    scorer: ScoringProcess, monkeypatch: pytest.MonkeyPatch, predictor: Any, reason: str
) -> None:
    monkeypatch.setattr(shadow_scorer, "CPU_SECONDS", 0.1)
    with pytest.raises(ScoringFailed, match=reason):
        scorer.score(loaded(predictor), 1, ROWS)
    assert classes(scorer.score(loaded(Answers(), version=3), 1, ROWS)) == [0, 1]


def test_release_ends_the_process_and_the_next_rows_start_another(scorer: ScoringProcess) -> None:
    scorer.score(loaded(Answers()), 1, ROWS)
    first = child()
    scorer.release()
    assert not first.is_running()
    scorer.score(loaded(Answers()), 1, ROWS)
    assert child() != first


def test_a_closed_scorer_starts_no_process(scorer: ScoringProcess) -> None:
    scorer.close()
    with pytest.raises(ScoringFailed, match="the API stops"):
        scorer.score(loaded(Answers()), 1, ROWS)
