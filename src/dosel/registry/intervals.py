"""Confidence intervals of the metrics of one model, and of the difference of two models on the same rows.

The bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap (1993), the percentile interval. Rows with the
same true class and the same two predictions are equal to every metric here. Drawing rows with replacement is therefore
drawing the count of each kind from a multinomial distribution: exact, and as fast for a million rows as for one.

The gate decides by the bootstrap alone (`difference_interval`). Intervals that people read never claim certainty: see
`metric_intervals` and `shown_difference_interval`.
"""

from collections.abc import Callable, Mapping
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from dosel.usecases import Gate, Metric

Classes = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]
Figures = npt.NDArray[np.float64]
Interval = tuple[float, float]


def confusion(truth: Classes, predicted: Classes, codes: Classes) -> Counts:
    """Counts of shape (codes, codes): true class by row, predicted class by column.

    Raises:
        ValueError: a class is not among the codes, which must be sorted.
    """
    size = len(codes)
    places = [_place(classes, codes) for classes in (truth, predicted)]
    return np.bincount(places[0] * size + places[1], minlength=size * size).reshape(size, size)


def recalls(matrix: Counts) -> Figures:
    """Each class's recall, NaN for a class without rows. Matrices of shape (..., codes, codes)."""
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        found: Figures = hits / matrix.sum(axis=-1)
    return found


def _accuracy(matrix: Counts) -> Any:
    return np.diagonal(matrix, axis1=-2, axis2=-1).sum(axis=-1) / matrix.sum(axis=(-2, -1))


def _balanced_accuracy(matrix: Counts) -> Any:
    return np.nanmean(recalls(matrix), axis=-1)


def _f1_macro(matrix: Counts) -> Any:
    # As in scikit-learn: over the classes that occur in the truth or in the predictions.
    occurring = matrix.sum(axis=-1) + matrix.sum(axis=-2)
    with np.errstate(invalid="ignore"):
        return np.nanmean(2 * np.diagonal(matrix, axis1=-2, axis2=-1) / occurring, axis=-1)


METRICS: Mapping[Metric, Callable[[Counts], Any]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "f1_macro": _f1_macro,
}
"""Each metric, of confusion matrices of shape (..., codes, codes): an array of the shape (...)."""


def difference_interval(
    gate: Gate,
    truth: Classes,
    challenger: Classes,
    champion: Classes,
    codes: Classes,
    seed: int,
    share: float = 1.0,
) -> Interval:
    """The interval of the metric's difference that the gate decides by, challenger minus champion.

    Args:
        gate: declares the metric, the confidence and the number of resamples.
        share: the share of the error probability (1 - confidence) that the interval may spend. The percentile interval
            is then widened by the ratio of normal quantiles: resamples are too few for quantiles so far out.
    """
    size = len(codes)
    true, one, other = (_place(classes, codes) for classes in (truth, challenger, champion))
    kinds, counts = np.unique((true * size + one) * size + other, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(truth), counts / counts.sum(), size=gate.resamples)
    figure = METRICS[gate.metric]
    scores = []
    for cells in ((kinds // size**2) * size + (kinds // size) % size, (kinds // size**2) * size + kinds % size):
        matrices = np.zeros((gate.resamples, size * size), dtype=np.int64)
        np.add.at(matrices.T, cells, drawn.T)
        scores.append(figure(matrices.reshape(gate.resamples, size, size)))
    tail = (1 - gate.confidence) / 2
    low, high = np.quantile(scores[0] - scores[1], [tail, 1 - tail])
    middle = float(figure(confusion(truth, challenger, codes)) - figure(confusion(truth, champion, codes)))
    wider = NormalDist().inv_cdf(tail * share) / NormalDist().inv_cdf(tail)
    return middle + (float(low) - middle) * wider, middle + (float(high) - middle) * wider


def shown_difference_interval(
    gate: Gate,
    truth: Classes,
    challenger: tuple[Classes, Interval],
    champion: tuple[Classes, Interval],
    codes: Classes,
    seed: int,
) -> Interval:
    """The interval of the metric's difference that people read; never empty, unlike the one that the gate decides by.

    The difference of accuracies has Newcombe's hybrid score interval for paired proportions (method 10 of Improved
    confidence intervals for the difference between binomial proportions based on paired data, Statistics in Medicine
    17, 1998). For other metrics, the bootstrap's interval is widened to at least what the same formula gives: it holds
    for any two figures with intervals (Zou and Donner, Construction of confidence intervals about effect measures,
    Statistics in Medicine 27, 2008).

    Args:
        challenger: its answers, and the interval of its metric by `metric_intervals`.
        champion: likewise.
    """
    (one, (one_low, one_high)), (other, (other_low, other_high)) = challenger, champion
    first, second = (float(METRICS[gate.metric](confusion(truth, classes, codes))) for classes in (one, other))
    related = _correlation(one == truth, other == truth)
    low = first - second - _combined(first - one_low, other_high - second, related)
    high = first - second + _combined(one_high - first, second - other_low, related)
    if gate.metric == "accuracy":
        return low, high
    return _widest((low, high), difference_interval(gate, truth, one, other, codes, seed))


def metric_intervals(gate: Gate, matrix: Counts, seed: int) -> dict[str, Interval]:
    """The interval of each metric of one model, by its confusion matrix of shape (codes, codes).

    Accuracy is a share of rows, with Wilson's interval. The other metrics are means over classes, with the percentile
    interval of the bootstrap. That interval is too narrow with few errors, and empty without errors, since no resample
    has one. It is therefore widened to at least what Wilson's intervals of the classes give.
    """
    rows, hits = int(matrix.sum()), np.diagonal(matrix)
    drawn = np.random.default_rng(seed).multinomial(rows, matrix.ravel() / rows, size=gate.resamples)
    tail, matrices = (1 - gate.confidence) / 2, drawn.reshape(-1, *matrix.shape)
    found = {"accuracy": share_interval(int(hits.sum()), rows, gate.confidence)}
    true, concerned = matrix.sum(axis=1), matrix.sum(axis=1) + matrix.sum(axis=0) - hits
    of_classes: dict[Metric, Interval] = {
        "balanced_accuracy": _mean_interval(hits, true, gate.confidence, lambda recall: recall),
        # A class's F1 follows from its share of hits among the rows of which it is the true or the predicted class.
        "f1_macro": _mean_interval(hits, concerned, gate.confidence, lambda share: 2 * share / (1 + share)),
    }
    for name, interval in of_classes.items():
        low, high = np.quantile(METRICS[name](matrices), [tail, 1 - tail])
        found[name] = _widest(interval, (float(low), float(high)))
    return found


def _mean_interval(hits: Counts, rows: Counts, confidence: float, figure: Callable[[float], float]) -> Interval:
    """The interval of the mean over classes with rows of a figure that grows with the class's share of hits.

    Squares of the distances to Wilson's bounds are added, as for a sum of independent figures (Zou and Donner, 2008).
    """
    counts = [(int(hit), int(of)) for hit, of in zip(hits, rows, strict=True) if of]
    values = np.array([figure(hit / of) for hit, of in counts])
    bounds = np.array([[figure(bound) for bound in share_interval(hit, of, confidence)] for hit, of in counts])
    below, above = np.sqrt(((bounds.T - values) ** 2).sum(axis=1)) / len(counts)
    middle = float(values.mean())
    return middle - float(below), middle + float(above)


def _correlation(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """The correlation of two models' right answers, corrected towards 0 as in Newcombe's method 10."""
    both, neither = int((one & other).sum()), int((~one & ~other).sum())
    only_one, only_other = int((one & ~other).sum()), int((~one & other).sum())
    margins = (both + only_one) * (neither + only_other) * (both + only_other) * (neither + only_one)
    product = both * neither - only_one * only_other
    corrected = max(product - len(one) / 2, 0.0) if product > 0 else product
    return corrected / sqrt(margins) if margins else 0.0


def _combined(one: float, other: float, correlation: float) -> float:
    return sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))


def _widest(one: Interval, other: Interval) -> Interval:
    return min(one[0], other[0]), max(one[1], other[1])


def share_interval(correct: int, rows: int, confidence: float) -> Interval:
    """The interval of a share of rows (Wilson, Probable inference, JASA 22, 1927); `rows` is not 0."""
    z, share = NormalDist().inv_cdf((1 + confidence) / 2), correct / rows
    middle, spread = share + z**2 / (2 * rows), z * sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    low, high = ((middle + sign * spread) / (1 + z**2 / rows) for sign in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def _place(classes: Classes, codes: Classes) -> npt.NDArray[np.intp]:
    places = np.searchsorted(codes, classes)
    if len(classes) and not (codes[np.minimum(places, len(codes) - 1)] == classes).all():
        raise ValueError(f"a class that is not declared: {sorted(set(classes.tolist()) - set(codes.tolist()))}")
    return places
