"""The harm test and the confidence sequence: power, and error rates when every label is looked at."""

import numpy as np
import pytest

from dosel.monitor.sequential import (
    Tally,
    confidence_sequence,
    first_proof,
    log_evidence_of_harm,
    share_of_budget,
)

ALPHA = 0.01
HELD_OUT = 2_000


def looks(rate: float, labels: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Correct answers among the first 1, 2, … labels of a stream."""
    return np.cumsum(random.random(labels) < rate), np.arange(1, labels + 1)


def share_alarmed(before: float, now: float, held_out: int, streams: int, labels: int, seed: int = 1) -> float:
    random = np.random.default_rng(seed)
    alarmed = 0
    for _ in range(streams):
        promised = Tally(int(random.binomial(held_out, before)), held_out)
        alarmed += first_proof(log_evidence_of_harm(promised, *looks(now, labels, random)), ALPHA) is not None
    return alarmed / streams


@pytest.mark.parametrize(("rate", "held_out"), [(0.85, 2_000), (0.98, 100), (0.5, 400)])
def test_false_alarms_stay_below_alpha_when_every_label_is_looked_at(rate: float, held_out: int) -> None:
    # The test allows 1 % false alarms; 300 streams exceed 3 % with probability 0.002, and the seed is fixed.
    assert share_alarmed(rate, rate, held_out, streams=300, labels=2_000) <= 0.03


@pytest.mark.parametrize(("now", "labels"), [(0.80, 5_000), (0.60, 200), (0.10, 40)])
def test_a_lower_rate_is_proven_as_harm(now: float, labels: int) -> None:
    assert share_alarmed(0.85, now, HELD_OUT, streams=50, labels=labels) >= 0.9


def test_a_higher_rate_is_no_harm() -> None:
    assert share_alarmed(0.85, 0.95, HELD_OUT, streams=20, labels=5_000) == 0


def test_fewer_held_out_rows_give_weaker_evidence_of_harm() -> None:
    correct, total = np.array([74]), np.array([100])
    few, many = (log_evidence_of_harm(Tally(int(0.9 * n), n), correct, total)[0] for n in (50, 5_000))
    assert few < np.log(1 / ALPHA) < many


def test_without_labels_there_is_no_evidence() -> None:
    assert log_evidence_of_harm(Tally(90, 100), np.array([0]), np.array([0]))[0] == pytest.approx(0)


def test_the_evidence_depends_on_the_cumulative_counts_alone() -> None:
    random = np.random.default_rng(3)
    correct, total = looks(0.8, 500, random)
    whole = log_evidence_of_harm(Tally(1_700, HELD_OUT), correct, total)
    in_parts = [
        log_evidence_of_harm(Tally(1_700, HELD_OUT), correct[s], total[s]) for s in (slice(200), slice(200, 500))
    ]
    assert np.allclose(whole, np.concatenate(in_parts))


def test_all_versions_of_a_use_case_share_one_error_budget() -> None:
    shares = [share_of_budget(ALPHA, term) for term in range(1, 2_000)]
    assert sum(shares) < ALPHA
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("rate", [0.02, 0.5, 0.85, 1.0])
def test_a_confidence_sequence_holds_at_all_times(rate: float) -> None:
    random = np.random.default_rng(5)
    missed = 0
    for _ in range(60):
        correct, total = looks(rate, 600, random)
        bounds = [confidence_sequence(Tally(int(correct[i]), int(total[i])), 0.05) for i in range(0, 600, 20)]
        missed += any(not low <= rate <= high for low, high in bounds)
    assert missed / 60 <= 0.1


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (0, 10), (10, 10), (85, 100), (8_500, 10_000)])
def test_a_confidence_sequence_contains_the_rate_and_narrows(correct: int, total: int) -> None:
    low, high = confidence_sequence(Tally(correct, total), ALPHA)
    assert 0 <= low <= high <= 1
    if total:
        assert low <= correct / total <= high
        wider = confidence_sequence(Tally(correct, total), ALPHA / 100)
        assert wider[0] <= low <= high <= wider[1]


def test_a_confidence_sequence_agrees_with_the_confseq_library() -> None:
    boundaries = pytest.importorskip("confseq.boundaries", reason="confseq is not installed: pip install confseq")
    for correct, total in [(85, 100), (850, 1_000), (30, 40)]:
        # The library's mixture is a beta distribution tuned for one sample size; dosel's is uniform.
        ours = confidence_sequence(Tally(correct, total), ALPHA)
        theirs = boundaries.bernoulli_confidence_interval(correct, total, ALPHA, total, ALPHA)
        assert ours == pytest.approx(theirs, abs=0.03)
