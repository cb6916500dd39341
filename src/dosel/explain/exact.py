"""Exact Shapley values of encoded columns, in milliseconds, for trees and forests.

Their probability is a mean over trees, so that its parts add up. Boosted trees and linear models add up scores, from
which a softmax makes probabilities: parts of a score would not add up to the probability that the answer shows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from dosel.explain import lightgbm_forests
from dosel.rows.columns import Floats


@dataclass(frozen=True)
class ColumnContributions:
    """Contributions of encoded columns, shape (width,); with `base` they add up to the class's probability."""

    values: Floats
    base: float

    @property
    def probability(self) -> float:
        return self.base + float(self.values.sum())


@dataclass(frozen=True)
class Exact:
    """An explanation method for a classifier: `of` takes one encoded row, shape (1, width), and a class's index."""

    method: str
    of: Callable[[Floats, int], ColumnContributions]


def exact(classifier: Any) -> Exact | None:
    """The exact method for a fitted classifier; None if there is none, or it would take too long."""
    trees = lightgbm_forests.trees_of(classifier)
    if trees is None or lightgbm_forests.steps(trees) > lightgbm_forests.MOST_STEPS:
        return None
    # A class's trees are converted on the first request for that class.
    booster = lru_cache(maxsize=None)(lambda chosen: lightgbm_forests.booster(trees, chosen))

    def of(encoded: Floats, chosen: int) -> ColumnContributions:
        single = encoded.astype(np.float32).astype(np.float64)
        # One row keeps one thread busy: others would only spin, on cores that predictions need.
        [found] = booster(chosen).predict(single, pred_contrib=True, num_threads=1)
        return ColumnContributions(found[:-1], float(found[-1]))

    return Exact("TreeSHAP", of)
