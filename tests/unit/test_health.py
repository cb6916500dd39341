"""The health of a version with many labelled rows."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dosel.closed import BLOCK
from dosel.monitor import health, sequential
from dosel.monitor.truths import Truths, TruthSource
from dosel.usecases import UseCase
from dosel.usecases.covertype import COVERTYPE

START = datetime(2026, 1, 1, tzinfo=UTC)


def looked_at(
    right: list[bool], use_case: UseCase = COVERTYPE, sources: Sequence[TruthSource] = ("feedback",)
) -> health.Health:
    """The health that readers see after labels of one row each, from these sources in turn."""
    entry: Any = SimpleNamespace(model=COVERTYPE.model_name, sequence=1, to_version=1, at=START)
    entry.evidence = SimpleNamespace(kind="gate", to_run="r", gate={"recalled": {"1": [950, 1000]}})
    labelled = [
        Truths(
            COVERTYPE.name, entry.model, 1, 1, sources[i % len(sources)], str(i), START + timedelta(minutes=i),
            np.array([1]), np.array([1 if good else 2]),
        )
        for i, good in enumerate(right)
    ]  # fmt: skip
    ledger: Any = SimpleNamespace(history=lambda _: [entry], verdicts=lambda _: {}, open_shadows=lambda _: [])
    truths: Any = SimpleNamespace(of=lambda *_: labelled, coverage=lambda *_: None, context=lambda *_: None)
    found = health.health(use_case, ledger, truths, for_readers=True)
    assert found is not None
    return found


@pytest.mark.parametrize("calls", [0, 1, 2, 3, 6, 7, 8, 50, 51])
def test_the_course_has_a_bounded_number_of_points_at_even_distances(
    calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "COURSE_POINTS", 7)
    found = looked_at([True] * calls)
    labels = [point.labels for point in found.course]
    assert found.labels == calls
    assert len(labels) <= 7
    assert labels[-1:] == [calls][: len(labels)]
    assert len(labels) >= min(calls, 4)
    assert len(set(np.diff(labels[:-1]))) <= 1


def test_the_time_of_proven_harm_is_exact_even_if_its_point_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = looked_at([False] * 60)
    monkeypatch.setattr(health, "COURSE_POINTS", 3)
    short = looked_at([False] * 60)
    assert whole.harmed_since is not None
    assert short.harmed_since == whole.harmed_since
    assert short.harmed_since not in [point.at for point in short.course]


CLOSED = replace(COVERTYPE, expose_training_rows=False)


def test_a_single_label_changes_no_figure_of_a_closed_use_case() -> None:
    right = np.random.default_rng(1).random(2 * BLOCK + 10) < 0.9
    seen = [looked_at(right[:labels].tolist(), CLOSED, ["batch"]) for labels in range(len(right) + 1)]
    assert all(found.labels == labels // BLOCK * BLOCK for labels, found in enumerate(seen))
    for first in (0, BLOCK, 2 * BLOCK):
        assert len({repr(found) for found in seen[first : first + BLOCK]}) == 1
    # A block ends at the time of its last label, and its figures are those of its rows.
    [*_, last] = seen[-1].course
    exact = looked_at(right[: 2 * BLOCK].tolist())
    assert last == exact.course[-1]
    assert seen[-1].findings == exact.findings


def test_feedback_changes_no_figure_of_a_closed_use_case() -> None:
    """Who gives 49 labels of a block would learn the 50th."""
    none, feedback = looked_at([], CLOSED), looked_at([True] * (3 * BLOCK), CLOSED)
    assert repr(feedback) == repr(none)
    # Between rows of batches, neither.
    mixed = looked_at([i % 2 == 0 for i in range(2 * BLOCK)], CLOSED, ["batch", "feedback"])
    assert mixed.labels == BLOCK
    assert mixed.findings[0].live.correct == BLOCK


def test_a_single_row_of_a_batch_does_not_prove_harm_of_a_closed_use_case() -> None:
    """A client that drives the evidence to the edge by feedback would learn whether that row was answered correctly."""
    for wrong in range(BLOCK):
        assert looked_at([False] * wrong, CLOSED, ["batch"]).state == "unknown"
    assert looked_at([False] * BLOCK, CLOSED, ["batch"]).state == "harmed"
    # Feedback beside it counts at once.
    edge = next(n for n in range(BLOCK) if looked_at([False] * n, CLOSED, ["feedback"]).state == "harmed")
    feedback: list[TruthSource] = ["feedback"] * (edge - 1)
    batch: list[TruthSource] = ["batch"] * 6
    found = looked_at([False] * (edge + 5), CLOSED, feedback + batch)
    assert found.state == "unknown"


def test_harm_of_a_closed_use_case_by_feedback_does_not_wait_for_the_end_of_a_block() -> None:
    exact, shown = (looked_at([False] * (BLOCK - 1), use_case) for use_case in (COVERTYPE, CLOSED))
    assert exact.state == shown.state == "harmed"
    assert shown.harmed_since == exact.harmed_since
    assert [finding.name for finding in shown.harmed] == [finding.name for finding in exact.harmed]
    assert shown.labels == 0


@pytest.mark.parametrize(("previous", "command"), [(None, "dosel train covertype"), (1, "dosel rollback covertype")])
def test_only_a_version_with_one_before_it_can_be_rolled_back(previous: int | None, command: str) -> None:
    assert replace(looked_at([]), previous=previous).remedy == command
    assert replace(looked_at([]), previous=previous, control=1).remedy == "dosel shadow"


def test_a_second_look_computes_no_bounds_of_earlier_points(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at([True, False] * 100)
    computed = list[int]()
    bounds = sequential.confidence_sequence

    def counted(tally: Any, alpha: float) -> tuple[float, float]:
        computed.append(tally.total)
        return bounds(tally, alpha)

    monkeypatch.setattr(health, "confidence_sequence", counted)
    looked_at([True, False] * 100)
    # The metrics' own bounds: one each.
    assert len(computed) == 1 + len(COVERTYPE.target.labels)
