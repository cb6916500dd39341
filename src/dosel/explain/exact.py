"""Exact Shapley values of encoded columns, in milliseconds, for models that have a formula for them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np

from dosel.explain import lightgbm_forests
from dosel.rows.columns import Floats

Unit = Literal["probability", "log-odds"]
"""What contributions add up to: the class's probability, or the score from which the model computes it."""


@dataclass(frozen=True)
class Columns:
    """Contributions of encoded columns, shape (width,); with `base` they add up to the output.

    `probability` is the class's probability that follows from the output, for a comparison with the model's answer.
    """

    values: Floats
    base: float
    probability: float


@dataclass(frozen=True)
class Exact:
    """An explanation method for a classifier: `of` takes one encoded row, shape (1, width), and a class's index."""

    method: str
    unit: Unit
    of: Callable[[Floats, int], Columns]


def exact(classifier: Any, background: Floats) -> Exact | None:
    """The exact method for a fitted classifier; None if there is none, or it would take too long.

    Args:
        background: encoded training rows, shape (rows, width); a linear model's base is the mean over them.
    """
    trees = lightgbm_forests.trees_of(classifier)
    if trees is not None:
        if lightgbm_forests.steps(trees) > lightgbm_forests.MOST_STEPS:
            return None
        return Exact("TreeSHAP", "probability", _forest(trees))
    match type(classifier).__name__:
        case "LGBMClassifier":
            return Exact("TreeSHAP (LightGBM's own)", "log-odds", _raw(_lightgbm(classifier)))
        case "XGBClassifier":
            return Exact("TreeSHAP (XGBoost's own)", "log-odds", _raw(_xgboost(classifier)))
        case "LogisticRegression":
            return Exact("linear SHAP", "log-odds", _raw(_linear(classifier, background.mean(axis=0))))
    return None


def _forest(trees: list[Any]) -> Callable[[Floats, int], Columns]:
    # A class's trees are converted on the first request for that class.
    booster = lru_cache(maxsize=None)(lambda chosen: lightgbm_forests.booster(trees, chosen))

    def of(encoded: Floats, chosen: int) -> Columns:
        single = encoded.astype(np.float32).astype(np.float64)
        [found] = booster(chosen).predict(single, pred_contrib=True)
        return Columns(found[:-1], float(found[-1]), float(found.sum()))

    return of


Scores = Callable[[Floats], Floats]
"""Takes one encoded row; gives the contributions to each class's score and, in the last column, the base: shape
(classes, width + 1). With two classes there may be only a row for the second.
"""


def _raw(scores: Scores) -> Callable[[Floats, int], Columns]:
    def of(encoded: Floats, chosen: int) -> Columns:
        found = scores(encoded)
        if len(found) == 1:
            # The first of two classes has the second's contributions with the opposite sign.
            found = np.stack([-found[0], found[0]]) / 2
            unhalved = 2 * found[chosen]
        else:
            unhalved = found[chosen]
        totals = found.sum(axis=1)
        odds = np.exp(totals - totals.max())
        return Columns(unhalved[:-1], float(unhalved[-1]), float(odds[chosen] / odds.sum()))

    return of


def _boosted(predict: Callable[[Floats], Any]) -> Scores:
    def scores(encoded: Floats) -> Floats:
        found: Floats = np.asarray(predict(encoded), np.float64)
        return found.reshape(-1, encoded.shape[1] + 1)

    return scores


def _lightgbm(classifier: Any) -> Scores:
    return _boosted(partial(classifier.booster_.predict, pred_contrib=True))


def _xgboost(classifier: Any) -> Scores:
    import xgboost

    booster = classifier.get_booster()
    return _boosted(lambda encoded: booster.predict(xgboost.DMatrix(encoded), pred_contribs=True))


def _linear(classifier: Any, mean: Floats) -> Scores:
    weights, intercept = classifier.coef_, classifier.intercept_

    def scores(encoded: Floats) -> Floats:
        return np.column_stack([weights * (encoded - mean), weights @ mean + intercept])

    return scores
