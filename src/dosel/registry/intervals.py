"""Confidence intervals for the difference of two models, by a paired bootstrap over the rows both were scored on.

Efron and Tibshirani, An Introduction to the Bootstrap (1993): the percentile interval. Rows with the same true class
and the same two predictions are equal to every metric here. Drawing rows with replacement is therefore drawing the
count of each kind from a multinomial distribution: exact, and as fast for a million rows as for one.
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
) -> tuple[float, float]:
    """The interval of the metric's difference, challenger minus champion; the class arrays have shape (rows,).

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


def metric_intervals(gate: Gate, matrix: Counts, seed: int) -> dict[str, tuple[float, float]]:
    """The percentile interval of each metric of one model, by its confusion matrix of shape (codes, codes)."""
    rows = int(matrix.sum())
    drawn = np.random.default_rng(seed).multinomial(rows, matrix.ravel() / rows, size=gate.resamples)
    tail, matrices = (1 - gate.confidence) / 2, drawn.reshape(-1, *matrix.shape)
    bounds = {name: np.quantile(figure(matrices), [tail, 1 - tail]) for name, figure in METRICS.items()}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}


def share_interval(correct: int, rows: int, confidence: float) -> tuple[float, float]:
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
