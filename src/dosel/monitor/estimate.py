"""An estimate of the accuracy without labels, from the probabilities that a version answered with.

The probabilities are calibrated on held-out rows; the mean probability of the answered classes is then the expected
accuracy (confidence-based performance estimation). That holds as long as a row's class depends on its features as
before: the estimate cannot see a concept drift.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dosel.model.held_out import HeldOut
from dosel.rows.columns import Floats

FEWEST_ROWS = 100
"""Fewest rows of a window, and fewest held-out rows, for an estimate."""

MOST_THIN = 0.2
"""Largest share of thin rows (see `Estimate.thin`) for an estimate."""

NEAR, NEIGHBOURS = 0.1, 10
"""A row has support if `NEIGHBOURS` held-out rows with the same answer have a confidence within `NEAR` of its own."""

RESAMPLES = 30
"""Calibrations on resampled held-out rows, for the interval."""

_SMALLEST = 2e-3
"""Smallest probability before the logarithm; a forest often answers 0."""

_PENALTY = 5e-4
"""Weight of the squared biases, for classes that are rare among the held-out rows."""

_TINY = float(np.finfo(np.float64).tiny)

Classes = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Estimate:
    """The estimated accuracy of a window.

    Attributes:
        accuracy: None if the estimate is refused; `refused` says why, and is empty otherwise.
        low, high: where the accuracy of these very rows is expected with a probability of 95 %, without concept drift.
        thin: share of the window's rows without support among the held-out rows, or with a value that no training row
            had; None if that is not known.
    """

    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    thin: float | None = None
    refused: str = ""


def estimate(held_out: HeldOut | None, probabilities: Floats, outside: npt.NDArray[np.bool_]) -> Estimate:
    """Estimate the accuracy of a window.

    Args:
        held_out: the version's answers on held-out rows; None if the version has none.
        probabilities: of the window's answers, shape (rows, classes), in the order of `held_out.codes`.
        outside: rows with a value that no training row had, of shape (rows,).
    """
    if held_out is None:
        return Estimate(refused="not known: this version was trained before dosel kept held-out answers; train again")
    if min(len(held_out), len(probabilities)) < FEWEST_ROWS:
        counts = f"{len(probabilities):,} answers and {len(held_out):,} held-out rows"
        return Estimate(refused=f"too few rows: {counts}; it takes {FEWEST_ROWS} of each")
    thin = float((outside | ~_supported(held_out.probabilities, probabilities)).mean())
    if thin > MOST_THIN:
        return Estimate(thin=thin, refused=f"{thin:.0%} of the rows are unlike the held-out rows")
    known = np.isin(held_out.truth, held_out.codes)
    truth = np.searchsorted(held_out.codes, held_out.truth[known])
    scaling = _scaling(_logs(held_out.probabilities[known]), truth)
    labelled, asked = (_scaled(_logs(rows), scaling) for rows in (held_out.probabilities[known], probabilities))
    answered = probabilities.argmax(axis=1)
    correct = _expected(labelled, truth, asked, answered)
    rng, means = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(truth), size=len(truth))
        means.append(_expected(labelled[drawn], truth[drawn], asked, answered).mean())
    # Two sources of error: which rows were held out, and chance among the window's rows.
    spread = float(np.sqrt(np.var(means, ddof=1) + (correct * (1 - correct)).sum() / len(correct) ** 2))
    accuracy = float(correct.mean())
    return Estimate(accuracy, max(0.0, accuracy - 1.96 * spread), min(1.0, accuracy + 1.96 * spread), thin)


def _supported(held_out: Floats, window: Floats) -> npt.NDArray[np.bool_]:
    """Whether each row of the window has enough held-out rows with the same answer and nearly the same confidence."""
    answered, confidence = window.argmax(axis=1), window.max(axis=1)
    found = np.zeros(len(window), np.bool_)
    for place in np.unique(answered):
        same = np.sort(held_out.max(axis=1)[held_out.argmax(axis=1) == place])
        mine = answered == place
        low, high = (np.searchsorted(same, confidence[mine] + off) for off in (-NEAR, NEAR))
        found[mine] = high - low >= NEIGHBOURS
    return found


def _expected(labelled: Floats, truth: Classes, asked: Floats, answered: Classes) -> Floats:
    """The calibrated probability that each answer of the window is correct, of shape (rows,).

    Each class has an isotonic curve from the scaled probabilities of labelled rows to the shares of that class.
    """
    from sklearn.isotonic import IsotonicRegression

    curves = np.column_stack(
        [
            IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
            .fit(labelled[:, place], truth == place)
            .predict(asked[:, place])
            for place in range(asked.shape[1])
        ]
    )
    of_answers: Floats = curves[np.arange(len(answered)), answered]
    sums: Floats = curves.sum(axis=1).clip(_TINY)
    return of_answers / sums


def _logs(probabilities: Floats) -> Floats:
    logs: Floats = np.log(probabilities.clip(_SMALLEST))
    return logs


def _scaled(logs: Floats, scaling: Floats) -> Floats:
    """Probabilities after a temperature, `scaling[0]`, and a bias for each class: the rest."""
    raised = scaling[0] * logs + scaling[1:]
    powers = np.exp(raised - raised.max(axis=1, keepdims=True))
    scaled: Floats = powers / powers.sum(axis=1, keepdims=True)
    return scaled


def _scaling(logs: Floats, truth: Classes) -> Floats:
    """The scaling with the largest likelihood, and small biases."""
    from scipy.optimize import minimize

    wanted = np.eye(logs.shape[1])[truth]

    def loss(scaling: Floats) -> tuple[float, Floats]:
        found = _scaled(logs, scaling)
        off = (found - wanted) / len(truth)
        biases = scaling[1:]
        value = -np.log(found[wanted > 0].clip(_TINY)).mean() + _PENALTY * (biases**2).sum()
        return float(value), np.append((off * logs).sum(), off.sum(axis=0) + 2 * _PENALTY * biases)

    start = np.append(1.0, np.zeros(logs.shape[1]))
    found: Floats = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x
    return found
