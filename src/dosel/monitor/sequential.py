"""Sequential tests: their result is valid after every label, at one error rate for all labels together.

The harm test compares two rates of correct answers: the one on the held-out rows, on which the gate decided, and the
one on live rows. It is a mixture likelihood ratio. Its denominator is what the held-out rows predict of the live rows
if nothing changed (beta-binomial with Jeffreys' prior), so the test allows for the uncertainty of that figure. Its
numerator is a mixture of lower rates. The ratio is a martingale where nothing changed, so by Ville's inequality it
reaches 1/alpha at any time with probability alpha at most, averaged over the rates that the held-out rows leave open.

Sources: Robbins, "Statistical methods related to the law of the iterated logarithm" (1970); Waudby-Smith and Ramdas,
"Estimating means of bounded random variables by betting" (2024); Podkopaev and Ramdas, "Tracking the risk of a
deployed model and detecting harmful distribution shifts" (2022). `make bench-monitor` measures the error rates.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Differences = npt.NDArray[np.int64] | npt.NDArray[np.float64]

_JEFFREYS = 0.5

_FALL, _SPREAD = 4.0, 0.5
"""The fall that the numerator expects, in standard errors of the held-out rate: its mean and spread.

A much smaller fall could not be proven with so few held-out rows, however many labels arrive. Chosen by simulation.
"""

_ANY_RATE = 0.05
"""The weight of a uniform distribution over all lower rates, so that a large fall is proven soon."""


@dataclass(frozen=True)
class Tally:
    """Correct answers among labelled rows."""

    correct: int
    total: int

    @property
    def rate(self) -> float:
        """0 to 1; NaN without rows."""
        return self.correct / self.total if self.total else float("nan")


def log_evidence_of_harm(promised: Tally, correct: Counts, total: Counts) -> Floats:
    """The logarithm of the evidence that live rows are answered worse than the held-out rows were.

    Args:
        promised: the held-out rows.
        correct: correct answers among the first `total` live rows; both of shape (checks,).

    Returns:
        Shape (checks,). Harm is proven at error rate alpha where it reaches log(1 / alpha).
    """
    # scipy is imported by what needs it: without labels, an API process and a command do without it.
    from scipy.special import betaln, logsumexp

    wrong = total - correct
    a, b = promised.correct + _JEFFREYS, promised.total - promised.correct + _JEFFREYS
    unchanged = betaln(a + correct, b + wrong) - betaln(a, b)
    rate = a / (a + b)
    error = np.sqrt(rate * (1 - rate) / (a + b))
    mean = max(rate - _FALL * error, rate / 4)
    mass = max(mean * (1 - mean) / (_SPREAD * error) ** 2 - 1, 2.0)
    worse = [
        np.log(weight) + _log_mixture(c, d, correct, wrong, rate)
        for weight, c, d in ((1 - _ANY_RATE, mean * mass, (1 - mean) * mass), (_ANY_RATE, 1.0, 1.0))
    ]
    evidence: Floats = logsumexp(np.array(worse), axis=0) - unchanged
    return evidence


def _log_mixture(a: float, b: float, correct: Counts, wrong: Counts, below: float) -> Floats:
    """The logarithm of the likelihood, averaged over rates of the distribution Beta(a, b) up to `below`."""
    from scipy.special import betainc, betaln

    with np.errstate(divide="ignore"):
        part = np.log(betainc(a + correct, b + wrong, below)) - np.log(betainc(a, b, below))
    mixture: Floats = betaln(a + correct, b + wrong) - betaln(a, b) + part
    return mixture


def first_proof(log_evidence: Floats, alpha: float) -> int | None:
    """The first place at which the evidence is enough, or None."""
    enough = np.flatnonzero(log_evidence >= -np.log(alpha))
    return int(enough[0]) if len(enough) else None


def share_of_budget(alpha: float, term: int) -> float:
    """The part of the error rate `alpha` for the version that entered Production as number `term`, from 1.

    The parts alpha/2, alpha/6, alpha/12, … add up to alpha, so that the rate holds for all versions together.
    """
    return alpha / (term * (term + 1))


def confidence_sequence(tally: Tally, alpha: float) -> tuple[float, float]:
    """Bounds of a rate which hold at all times together with probability 1 - alpha.

    The rates whose likelihood is more than alpha times that of a uniform mixture of all rates.
    """
    correct, wrong = tally.correct, tally.total - tally.correct
    if not tally.total:
        return 0.0, 1.0
    from scipy.optimize import brentq
    from scipy.special import betaln, xlog1py, xlogy

    mixture = betaln(1 + correct, 1 + wrong)

    def against(rate: float) -> float:
        """Negative inside the bounds."""
        return float(mixture - xlogy(correct, rate) - xlog1py(wrong, -rate) + np.log(alpha))

    best, edge = tally.rate, 1e-12
    low = brentq(against, edge, best) if correct and against(edge) > 0 else 0.0
    high = brentq(against, best, 1 - edge) if wrong and against(1 - edge) > 0 else 1.0
    return float(low), float(high)


_BETS = np.geomspace(0.02, 0.9, 12)
"""Shares of the wealth that are bet on a difference. Small shares prove small gains, large ones need few rows."""


def log_evidence_of_gain(differences: Differences, margin: float = 0.0) -> Floats:
    """The logarithm of the evidence that the mean of differences is above `margin`, after each of them.

    The wealth of a gambler who bets fixed shares of it on every difference, averaged over the shares. While the mean,
    given all that came before, is at most `margin`, the wealth is a supermartingale, so by Ville's inequality it
    reaches 1/alpha at any time with probability alpha at most.

    Args:
        differences: -1 to 1, such as the correct answers of one version minus those of another; shape (rows,).

    Returns:
        Shape (rows,). A gain is proven at error rate alpha where it reaches log(1 / alpha).

    Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (2024).
    """
    from scipy.special import logsumexp

    bets = _BETS[:, None] / (1 + margin)
    wealth = np.cumsum(np.log1p(bets * (differences - margin)), axis=1)
    evidence: Floats = logsumexp(wealth, axis=0) - np.log(len(_BETS))
    return evidence
