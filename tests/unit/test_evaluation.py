"""Metrics of a model, on a few predictions whose metrics can be computed by hand."""

import warnings

import numpy as np
import pytest

from dosel.training.evaluation import confusion_figure, evaluate
from dosel.usecases import Target
from dosel.usecases.covertype import COVERTYPE

TREES = Target("tree", "Tree", {1: "fir", 2: "pine", 3: "aspen"})


def codes(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


TRUTH = codes(1, 1, 1, 1, 2, 2, 3, 3)
PREDICTED = codes(1, 1, 1, 2, 2, 2, 2, 3)


def test_metrics_equal_the_textbook_formulas() -> None:
    metrics = evaluate(TREES, TRUTH, PREDICTED).metrics
    precision, recall, support = [1, 2 / 4, 1], [3 / 4, 1, 1 / 2], [4, 2, 2]
    f1 = [2 * p * r / (p + r) for p, r in zip(precision, recall, strict=True)]
    assert metrics == pytest.approx(
        {
            "accuracy": 6 / 8,
            "balanced_accuracy": np.mean(recall),
            "precision_macro": np.mean(precision),
            "recall_macro": np.mean(recall),
            "f1_macro": np.mean(f1),
            "precision_weighted": np.average(precision, weights=support),
            "recall_weighted": np.average(recall, weights=support),
            "f1_weighted": np.average(f1, weights=support),
        }
    )
    assert all(type(value) is float for value in metrics.values())


def test_the_confusion_matrix_has_the_truth_by_row() -> None:
    assert evaluate(TREES, TRUTH, PREDICTED).confusion.tolist() == [[3, 1, 0], [0, 2, 0], [0, 1, 1]]


def test_the_classification_report_names_every_class() -> None:
    report = evaluate(TREES, TRUTH, PREDICTED).report
    assert report["fir"] == pytest.approx({"precision": 1, "recall": 0.75, "f1-score": 6 / 7, "support": 4})
    assert set(TREES.labels.values()) <= set(report)


def test_metrics_are_zero_without_a_warning_when_every_prediction_is_wrong() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation = evaluate(TREES, codes(1, 2), codes(2, 1))
    assert set(evaluation.metrics.values()) == {0.0}


def test_perfect_predictions_have_metrics_of_one() -> None:
    assert set(evaluate(TREES, TRUTH, TRUTH).metrics.values()) == {1.0}


def test_a_class_that_occurs_nowhere_counts_as_zero() -> None:
    evaluation = evaluate(TREES, codes(1, 2, 1, 2), codes(1, 2, 1, 2))
    assert evaluation.metrics["f1_macro"] == pytest.approx(2 / 3)
    assert evaluation.metrics["f1_weighted"] == 1
    assert evaluation.confusion.shape == (3, 3)
    for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
        for average in ("macro", "weighted"):
            assert evaluation.metrics[f"{ours}_{average}"] == evaluation.report[f"{average} avg"][theirs]


def test_the_confusion_figure_has_labelled_axes() -> None:
    axes = confusion_figure(TREES, evaluate(TREES, TRUTH, PREDICTED).confusion).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Predicted", "True")
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [tick.get_text() for tick in ticks] == ["fir", "pine", "aspen"]
    # A true fir called pine: the row of fir, the column of pine.
    assert {text.get_position(): text.get_text() for text in axes.texts}[(1, 0)] == "1"
    assert len(axes.texts) == 9
    shares = axes.images[0].get_array()
    assert shares is not None
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_the_confusion_figure_accepts_an_empty_class() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        confusion_figure(COVERTYPE.target, np.zeros((7, 7), dtype=np.int64))
