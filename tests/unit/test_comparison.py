"""A shadow is compared with its champion on labelled rows; what is proven stays proven, and chance proves nothing."""

from datetime import UTC, datetime

import numpy as np
import pytest

from dosel.monitor.comparison import Comparison, compare_arms, compare_pairs
from dosel.monitor.pairs import Arm, Pairs
from dosel.monitor.sequential import log_evidence_of_gain
from dosel.usecases import Shadow, Target

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TARGET = Target("kind", "Kind", labels={1: "oak", 2: "ash"})
RULES = Shadow(min_labels=20)


def compared(answers: str, rules: Shadow = RULES, max_fall: float = 1.0) -> Comparison:
    """One letter a row: both right, only the shadow, only the champion, neither; capitals are of the rare class."""
    truth = np.array([2 if letter.isupper() else 1 for letter in answers], np.int64)
    shadow = np.where([letter in "bsBS" for letter in answers], truth, 0)
    champion = np.where([letter in "bcBC" for letter in answers], truth, 0)
    return compare_pairs(TARGET, rules, max_fall, [Pairs("batch", "1", NOW, truth, champion, shadow)])


def test_rows_that_both_answer_alike_prove_nothing() -> None:
    found = compared("bn" * 500)
    assert found.proof.finding is None
    assert (found.proof.log_for, found.proof.log_against) == (0.0, 0.0)
    assert (found.labels, found.shadow.rate, found.champion.rate) == (1000, 0.5, 0.5)


def test_no_label_is_no_evidence() -> None:
    found = compared("")
    assert (found.labels, found.proof.finding, found.proof.log_for) == (0, None, 0.0)


@pytest.mark.parametrize(("letter", "finding"), [("s", "better"), ("c", "worse")])
def test_answers_that_only_one_gives_decide(letter: str, finding: str) -> None:
    found = compared("bbb" + letter * 30)
    assert found.proof.finding == finding
    assert found.proof.after is not None
    assert 20 <= found.proof.after < 33


def test_nothing_is_decided_before_the_fewest_labels() -> None:
    assert compared("s" * 30, Shadow(min_labels=31)).proof.finding is None
    assert compared("s" * 31, Shadow(min_labels=31)).proof.after == 31


def test_what_was_proven_first_stays_proven() -> None:
    assert compared("s" * 40 + "c" * 400).proof.finding == "better"


def test_a_better_version_that_loses_a_class_is_refused() -> None:
    answers = "s" * 4 + "C" * 10 + "b" * 6
    assert compared(answers + ("s" * 10 + "C" * 5) * 20, max_fall=1.0).proof.finding == "better"
    found = compared(answers + ("s" * 10 + "C" * 5) * 20, Shadow(min_labels=60), max_fall=0.1)
    assert found.proof.finding == "a class is worse"
    assert found.proof.falls["ash"] > 1 > found.proof.falls["oak"]


def test_a_small_fall_of_a_class_is_accepted() -> None:
    """One in twenty rows of the rare class is lost, a tenth may be."""
    found = compared(("s" + "B" * 19 + "s" + "C" + "s") * 40, max_fall=0.1)
    assert found.proof.finding == "better"


def test_evidence_against_equal_versions_is_rare() -> None:
    random = np.random.default_rng(0)
    proven = sum(
        bool((log_evidence_of_gain(random.choice([-1, 0, 1], p=(0.1, 0.8, 0.1), size=500)) >= np.log(20)).any())
        for _ in range(400)
    )
    # Expected at most 20 of 400, with a standard deviation of 4.4.
    assert 0 < proven <= 33


def arm(right: int, wrong: int, seed: int = 0) -> Arm:
    answered = np.random.default_rng(seed).permutation(np.repeat(np.array([1, 2], np.int64), (right, wrong)))
    return Arm(np.ones(right + wrong, np.int64), answered)


def test_a_canary_is_compared_with_other_rows() -> None:
    rules = Shadow(share=0.2, sticky_by="x")
    better = compare_arms(TARGET, rules, 1.0, arm(195, 5), arm(400, 400))
    assert (better.proof.finding, better.labels, better.only_shadow) == ("better", 200, None)
    assert compare_arms(TARGET, rules, 1.0, arm(60, 140), arm(760, 40)).proof.finding == "worse"
    assert compare_arms(TARGET, rules, 1.0, arm(100, 100), arm(400, 400)).proof.finding is None


def test_a_canary_without_rows_of_the_champion_waits() -> None:
    found = compare_arms(TARGET, Shadow(share=0.2, sticky_by="x"), 1.0, arm(200, 0), arm(0, 0))
    assert (found.proof.finding, found.labels) == (None, 0)
