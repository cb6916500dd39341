"""The gate: each rule passing and failing; a rule that cannot be evaluated fails."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import get_scorer
from sklearn.utils import resample

from dosel.registry.evaluations import JudgedRows, ModelEvaluation
from dosel.registry.gate import judge
from dosel.registry.intervals import (
    METRICS,
    confusion,
    difference_interval,
    metric_intervals,
    share_interval,
    shown_difference_interval,
)
from dosel.registry.looks import Look, share
from dosel.registry.report import Report
from dosel.usecases import Gate, Target

TARGET = Target("kind", "Kind", {1: "One", 2: "Two", 3: "Three"})
CODES = np.array([1, 2, 3])
SPLIT = "h1-salt-0.3-f"
ANSWER = {1: 0.2, 2: 0.7, 3: 0.1}
ROWS = 3000

RNG = np.random.default_rng(0)
TRUTH = RNG.choice(CODES, ROWS, p=[0.5, 0.4, 0.1])


def predictions(share: float, seed: int = 1) -> Any:
    """Predictions of which this share is correct; the others are the next class."""
    wrong = np.random.default_rng(seed).random(ROWS) >= share
    return np.where(wrong, TRUTH % 3 + 1, TRUTH)


def evaluation(predicted: Any, version: int = 2, **changed: Any) -> ModelEvaluation:
    answers: dict[str, Any] = {"split": SPLIT, "answered": ANSWER, "recorded": ANSWER, "latency_ms": 1.5} | changed
    return ModelEvaluation(version, predicted, **answers)


def judged(challenger: ModelEvaluation, champion: ModelEvaluation | None, **gate: Any) -> Report:
    return judge(Gate(**gate), TARGET, JudgedRows(TRUTH, SPLIT), challenger, champion, seed=0)


def failing(report: Report) -> set[str]:
    return {rule.name for rule in report.rules if not rule.holds}


GOOD, BAD = evaluation(predictions(0.9)), evaluation(predictions(0.7, seed=2), version=1)


def test_a_better_version_is_promoted_and_every_rule_has_a_message() -> None:
    report = judged(GOOD, BAD)
    assert report.passed
    assert [rule.name for rule in report.rules] == [
        *("serving", "example", "split", "floor", "baseline", "gain", "interval", "class recall"),
    ]
    assert all(rule.words for rule in report.rules)
    assert report.reason.startswith("better: accuracy 0.8")
    assert report.reason.endswith(" in Production, on the same 3,000 held-out rows")
    assert (report.challenger, report.champion, report.rows) == (2, 1, ROWS)
    assert report.latency_ms == {"challenger": 1.5, "production": 1.5}


def test_the_first_version_must_reach_the_floor_and_beat_the_majority_class() -> None:
    assert judged(GOOD, None).passed
    assert judged(GOOD, None).reason.endswith("; no champion to compare with")
    assert failing(judged(GOOD, None, floor=0.95)) == {"floor"}
    assert failing(judged(evaluation(np.ones(ROWS, dtype=int)), None)) == {"baseline"}


@pytest.mark.parametrize(
    ("rule", "challenger", "champion", "gate"),
    [
        pytest.param("serving", ModelEvaluation(2, None, "its files differ", SPLIT), BAD, {}, id="cannot be loaded"),
        pytest.param(
            "example", evaluation(predictions(0.9), answered=ANSWER | {2: 0.69}), BAD, {}, id="another probability"
        ),
        pytest.param(
            "example", evaluation(predictions(0.9), answered={1: 0.7, 2: 0.2, 3: 0.1}), BAD, {}, id="another class"
        ),
        pytest.param("example", evaluation(predictions(0.9), answered={1: 0.3, 2: 0.7}), BAD, {}, id="a class less"),
        pytest.param("example", evaluation(predictions(0.9), recorded=None), BAD, {}, id="nothing recorded"),
        pytest.param("split", evaluation(predictions(0.9), split="another"), BAD, {}, id="challenger's split"),
        pytest.param("split", evaluation(predictions(0.9), split=None), BAD, {}, id="no split"),
        pytest.param("split", GOOD, dataclasses.replace(BAD, split="another"), {}, id="champion's split"),
        pytest.param("floor", GOOD, BAD, {"floor": 0.95}, id="floor"),
        pytest.param("baseline", evaluation(np.full(ROWS, 1)), BAD, {}, id="no better than the majority"),
        pytest.param("gain", GOOD, BAD, {"min_gain": 0.5}, id="gains too little"),
        pytest.param("gain", GOOD, GOOD, {}, id="the same model"),
        pytest.param("gain", BAD, GOOD, {}, id="worse"),
        pytest.param("interval", BAD, GOOD, {}, id="surely worse"),
        pytest.param("class recall", evaluation(np.where(TRUTH == 3, 1, TRUTH)), BAD, {}, id="a class lost"),
        pytest.param(
            "gain", GOOD, ModelEvaluation(1, None, "no manifest", SPLIT), {}, id="the champion cannot be scored"
        ),
        pytest.param("baseline", evaluation(np.full(ROWS, 9)), BAD, {}, id="a class nobody declared"),
        pytest.param("gain", GOOD, BAD, {"metric": "auc"}, id="a metric nobody knows"),
    ],
)
def test_each_rule_refuses_a_version_that_breaks_it(
    rule: str, challenger: ModelEvaluation, champion: ModelEvaluation, gate: dict[str, Any]
) -> None:
    report = judged(challenger, champion, **gate)
    assert rule in failing(report)
    assert not report.passed
    assert report.reason


def test_a_gain_within_chance_passes_only_within_the_tolerance() -> None:
    truth = TRUTH[:100]
    one, other = predictions(0.80, seed=3)[:100], predictions(0.80, seed=4)[:100]
    assert (one == truth).mean() != (other == truth).mean()
    better, worse = sorted((one, other), key=lambda p: -(p == truth).mean())
    for tolerance, passes in ((0.0, False), (0.5, True)):
        gate = Gate(tolerance=tolerance, max_class_drop=1)
        report = judge(gate, TARGET, JudgedRows(truth, SPLIT), evaluation(better), evaluation(worse), seed=0)
        assert failing(report) == (set() if passes else {"interval"})


def test_a_gain_of_exactly_min_gain_passes() -> None:
    truth = np.array([1, 2] * 50)
    wrong = np.where(np.arange(100) < 25, 3, truth)
    worse = np.where(np.arange(100) < 50, 3, truth)
    report = judge(
        Gate(min_gain=0.25, max_class_drop=1), TARGET, JudgedRows(truth, SPLIT), evaluation(wrong), evaluation(worse), 0
    )
    assert "gain" not in failing(report)


def test_without_held_out_rows_no_version_passes() -> None:
    nothing = np.array([], dtype=np.int64)
    report = judge(Gate(), TARGET, JudgedRows(nothing, SPLIT), evaluation(nothing), evaluation(nothing), 0)
    assert failing(report) >= {"floor", "baseline", "gain", "interval", "class recall"}


def test_a_class_without_held_out_rows_is_named_and_does_not_block() -> None:
    some = TRUTH != 3
    challenger, champion = (evaluation(predictions(share)[some]) for share in (0.9, 0.7))
    report = judge(Gate(), TARGET, JudgedRows(TRUTH[some], SPLIT), challenger, champion, 0)
    assert report.passed
    assert "no held-out rows of Three" in next(r.words for r in report.rules if r.name == "class recall")


def test_the_report_is_unchanged_by_json() -> None:
    for report in (judged(GOOD, BAD), judged(BAD, GOOD), judged(GOOD, None)):
        document = json.loads(json.dumps(report.document(), allow_nan=False))
        assert document["passed"] is report.passed
        again = Report.read(document)
        assert (again.passed, again.table, again.reason) == (report.passed, report.table, report.reason)


def test_the_table_has_a_line_for_each_rule() -> None:
    table = judged(BAD, GOOD).table
    assert table.startswith("Candidate, not promoted: not better: accuracy 0.6")
    assert "| floor | holds | 0.6" in table
    assert "| gain | **fails** |" in table


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("classes", [(1, 2, 3), (1, 2)])
def test_metrics_equal_those_of_scikit_learn(metric: Any, classes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(5)
    truth, predicted = rng.choice(classes, 500), rng.choice(classes[::-1], 500)
    expected = get_scorer(metric)._score_func(truth, predicted, **get_scorer(metric)._kwargs)
    assert METRICS[metric](confusion(truth, predicted, CODES)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_the_interval_equals_that_of_a_bootstrap_over_rows(metric: Any) -> None:
    one, other, truth = predictions(0.9)[:400], predictions(0.8, seed=2)[:400], TRUTH[:400]
    low, high = difference_interval(Gate(metric, resamples=4000), truth, one, other, CODES, seed=0)
    figure = METRICS[metric]
    drawn = []
    for seed in range(1000):
        t, a, b = resample(truth, one, other, random_state=seed)
        drawn.append(figure(confusion(t, a, CODES)) - figure(confusion(t, b, CODES)))
    assert (low, high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.012)
    assert low < high
    assert (low, high) == difference_interval(Gate(metric, resamples=4000), truth, one, other, CODES, seed=0)


def test_the_interval_of_a_later_look_is_wider_around_the_same_difference() -> None:
    one, other = predictions(0.9), predictions(0.8, seed=2)
    gate, difference = Gate(), (one == TRUTH).mean() - (other == TRUTH).mean()
    low, high = difference_interval(gate, TRUTH, one, other, CODES, 0)
    wider_low, wider_high = difference_interval(gate, TRUTH, one, other, CODES, 0, share=0.01)
    # The quantiles of the normal distribution at 0.00025 and 0.025.
    ratio = 3.4808 / 1.9600
    assert wider_low == pytest.approx(difference + (low - difference) * ratio, abs=1e-5)
    assert wider_high == pytest.approx(difference + (high - difference) * ratio, abs=1e-5)


def test_a_gain_that_passes_at_the_first_look_can_be_chance_at_a_later_one() -> None:
    one, other = evaluation(predictions(0.81, seed=3)), evaluation(predictions(0.79, seed=4))
    gate = Gate(tolerance=0.01)
    first, late = (
        judge(gate, TARGET, JudgedRows(TRUTH, SPLIT, Look(n, 100, n - 1.0, share(100, n - 1.0))), one, other, 0)
        for n in (1, 30)
    )
    assert (failing(first), failing(late)) == (set(), {"interval"})
    assert first.look is not None
    assert first.look.left == 99
    assert "at look 30 of 100" in next(rule.words for rule in late.rules if rule.name == "interval")


def test_a_version_of_another_split_is_judged_on_rows_that_it_was_not_trained_on() -> None:
    rows = JudgedRows(TRUTH, SPLIT, other_splits={"another"})
    champion = dataclasses.replace(BAD, split="another")
    report = judge(Gate(), TARGET, rows, GOOD, champion, 0)
    assert report.passed
    assert "3,000 held-out rows that no model was trained on" in report.rules[2].words
    assert failing(judge(Gate(), TARGET, rows, GOOD, dataclasses.replace(BAD, split="a third"), 0)) == {"split"}


def grouped_report(wrong_of_second: float, second: int = 1000, **gate: Any) -> Report:
    """The report on a version that answers a share of the second group's rows wrongly, and all others correctly."""
    group = np.where(np.arange(ROWS) < ROWS - second, "first", "second")
    wrong = (np.arange(ROWS) >= ROWS - second) & (np.random.default_rng(3).random(ROWS) < wrong_of_second)
    rows = JudgedRows(TRUTH, SPLIT, groups={"group": group})
    return judge(Gate(**gate), TARGET, rows, evaluation(np.where(wrong, TRUTH % 3 + 1, TRUTH)), None, 0)


def test_each_group_has_its_own_figures_in_the_report() -> None:
    report = grouped_report(0.2)
    correct, rows = report.groups["group"]["second"]
    assert report.groups["group"]["first"] == (2000, 2000)
    assert rows == 1000
    assert correct / rows == pytest.approx(0.8, abs=0.05)
    assert Report.read(json.loads(json.dumps(report.document()))).rules == report.rules
    assert "group gap" not in {rule.name for rule in report.rules}


def test_the_largest_gap_between_groups_is_a_rule_if_declared() -> None:
    assert failing(grouped_report(0.2, max_gap=0.1)) == {"group gap"}
    assert grouped_report(0.2, max_gap=0.3).passed
    few = grouped_report(0.2, second=20, max_gap=1.0)
    assert failing(few) == {"group gap"}
    assert "at least 30 held-out rows" in few.reason


def test_the_intervals_of_a_version_contain_its_metrics() -> None:
    report = judged(GOOD, BAD)
    assert report.intervals.keys() == METRICS.keys()
    for name, (low, high) in report.intervals.items():
        assert low < report.metrics["challenger"][name] < high
        assert high - low < 0.08


@pytest.mark.parametrize(
    ("correct", "rows", "expected"), [(0, 10, (0, 0.2775)), (85, 100, (0.7672, 0.9069)), (10, 10, (0.7225, 1))]
)
def test_the_interval_of_a_share_is_wilsons(correct: int, rows: int, expected: tuple[float, float]) -> None:
    assert share_interval(correct, rows, 0.95) == pytest.approx(expected, abs=1e-3)


PERFECT = np.repeat(CODES, [50, 37, 26])


@pytest.mark.parametrize("metric", METRICS)
def test_no_interval_claims_certainty_although_every_row_is_answered_correctly(metric: Any) -> None:
    gate = Gate(metric)
    low, high = interval = metric_intervals(gate, confusion(PERFECT, PERFECT, CODES), 0)[metric]
    assert 0.9 < low < 0.98
    assert high == 1
    # The interval by which the gate decides is the bootstrap's: no resample has an error.
    assert difference_interval(gate, PERFECT, PERFECT, PERFECT, CODES, 0) == (0, 0)
    both = shown_difference_interval(gate, PERFECT, (PERFECT, interval), (PERFECT, interval), CODES, 0)
    assert both == pytest.approx((low - 1, 1 - low))


def test_a_perfect_models_accuracy_has_the_interval_of_a_recall_of_as_many_rows() -> None:
    found = metric_intervals(Gate("f1_macro"), confusion(PERFECT, PERFECT, CODES), 0)
    assert found["accuracy"] == share_interval(113, 113, 0.95)


@pytest.mark.parametrize("metric", METRICS)
def test_an_interval_never_gets_better_with_more_wrong_answers(metric: Any) -> None:
    lows = []
    for wrong in range(4):
        predicted = PERFECT.copy()
        predicted[:wrong] = 2
        lows.append(metric_intervals(Gate(metric), confusion(PERFECT, predicted, CODES), 0)[metric][0])
    assert lows == sorted(lows, reverse=True)


@pytest.mark.parametrize("metric", METRICS)
def test_the_shown_intervals_of_many_rows_are_close_to_the_bootstraps(metric: Any) -> None:
    gate, one, other = Gate(metric), predictions(0.9), predictions(0.85, seed=2)
    of_one, of_other = (metric_intervals(gate, confusion(TRUTH, p, CODES), 0)[metric] for p in (one, other))
    shown = shown_difference_interval(gate, TRUTH, (one, of_one), (other, of_other), CODES, 0)
    assert shown == pytest.approx(difference_interval(gate, TRUTH, one, other, CODES, 0), abs=0.003)


@pytest.mark.parametrize(
    ("both", "only_one", "only_other", "neither", "expected"),
    [
        pytest.param(36, 12, 2, 0, (0.0569, 0.3404), id="Newcombe 1998, table III, row 1"),
        pytest.param(54, 0, 0, 0, (-0.0664, 0.0664), id="row of equal and perfect answers"),
    ],
)
def test_the_difference_of_accuracies_has_newcombes_interval(
    both: int, only_one: int, only_other: int, neither: int, expected: tuple[float, float]
) -> None:
    counts = [both, only_one, only_other, neither]
    truth = np.ones(sum(counts), dtype=int)
    one, other = np.repeat([1, 1, 2, 2], counts), np.repeat([1, 2, 1, 2], counts)
    gate = Gate("accuracy")
    intervals = [metric_intervals(gate, confusion(truth, p, CODES), 0)["accuracy"] for p in (one, other)]
    found = shown_difference_interval(gate, truth, (one, intervals[0]), (other, intervals[1]), CODES, 0)
    assert found == pytest.approx(expected, abs=1e-4)
