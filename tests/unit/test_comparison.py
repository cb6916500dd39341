"""The comparison of a shadow with its champion on labelled rows: evidence holds, and chance is no evidence."""

from datetime import UTC, datetime

import numpy as np
import pytest

from dosel.monitor.comparison import ShadowComparison, compare_arms, compare_pairs
from dosel.monitor.pairs import Arm
from dosel.monitor.sequential import log_evidence_of_gain
from dosel.usecases import Shadow, Target

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TARGET = Target("kind", "Kind", labels={1: "oak", 2: "ash"})
RULES = Shadow(min_labels=20)


def compared(answers: str, rules: Shadow = RULES, max_fall: float = 1.0) -> ShadowComparison:
    """The comparison for one letter a row.

    b: both are right, s: only the shadow, c: only the champion, n: neither. Capitals are rows of the rare class.
    """
    truth = np.array([2 if letter.isupper() else 1 for letter in answers], np.int64)
    shadow = np.where([letter in "bsBS" for letter in answers], truth, 0)
    champion = np.where([letter in "bcBC" for letter in answers], truth, 0)
    return compare_pairs(TARGET, rules, max_fall, truth, champion, shadow)


def test_rows_with_equal_answers_are_no_evidence() -> None:
    found = compared("bn" * 500)
    assert found.proof.finding is None
    assert (found.proof.log_for, found.proof.log_against) == (0.0, 0.0)
    assert (found.labels, found.shadow.rate, found.champion.rate) == (1000, 0.5, 0.5)


def test_without_labels_there_is_no_evidence() -> None:
    found = compared("")
    assert (found.labels, found.proof.finding, found.proof.log_for) == (0, None, 0.0)


@pytest.mark.parametrize(("letter", "finding"), [("s", "better"), ("c", "worse")])
def test_rows_that_only_one_version_answers_correctly_decide(letter: str, finding: str) -> None:
    found = compared("bbb" + letter * 30)
    assert found.proof.finding == finding
    assert found.proof.after is not None
    assert 20 <= found.proof.after < 33


def test_no_decision_is_made_before_the_minimum_number_of_labels() -> None:
    assert compared("s" * 30, Shadow(min_labels=31)).proof.finding is None
    assert compared("s" * 31, Shadow(min_labels=31)).proof.after == 31


def test_the_first_proven_finding_stays() -> None:
    assert compared("s" * 40 + "c" * 400).proof.finding == "better"


def test_a_better_version_is_refused_when_a_class_recall_falls() -> None:
    answers = "s" * 4 + "C" * 10 + "b" * 6
    assert compared(answers + ("s" * 10 + "C" * 5) * 20, max_fall=1.0).proof.finding == "better"
    found = compared(answers + ("s" * 10 + "C" * 5) * 20, Shadow(min_labels=60), max_fall=0.1)
    assert found.proof.finding == "a class is worse"
    assert found.proof.falls["ash"] > 1 > found.proof.falls["oak"]


def test_a_class_recall_may_fall_within_the_tolerance() -> None:
    """The recall of the rare class falls by 0.05, and a fall of 0.1 is allowed."""
    found = compared(("s" + "B" * 19 + "s" + "C" + "s") * 40, max_fall=0.1)
    assert found.proof.finding == "better"


def test_equal_versions_are_rarely_found_different() -> None:
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


def test_a_canary_is_compared_with_the_champion_on_different_rows() -> None:
    rules = Shadow(share=0.2, sticky_by="x")
    better = compare_arms(TARGET, rules, 1.0, arm(195, 5), arm(400, 400))
    assert (better.proof.finding, better.labels, better.only_shadow) == ("better", 200, None)
    assert compare_arms(TARGET, rules, 1.0, arm(60, 140), arm(760, 40)).proof.finding == "worse"
    assert compare_arms(TARGET, rules, 1.0, arm(100, 100), arm(400, 400)).proof.finding is None


def test_a_canary_waits_until_the_champion_has_labelled_rows() -> None:
    found = compare_arms(TARGET, Shadow(share=0.2, sticky_by="x"), 1.0, arm(200, 0), arm(0, 0))
    assert (found.proof.finding, found.labels) == (None, 0)
