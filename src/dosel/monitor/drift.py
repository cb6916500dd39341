"""Compares the features of answered rows with those of training rows.

None of it needs labels, and none of it can see that classes began to depend on the features in another way.
"""

from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Literal

import numpy as np
import numpy.typing as npt

from dosel.model.ranges import FEWEST, range_of
from dosel.rows.columns import Codes, Columns, Floats
from dosel.usecases import Category, Number, UseCase

PERMUTATIONS = 99
"""Most permutations of the two-sample test; the smallest p-value is 0.01."""

DRAWS = 20
"""Samples of training rows that show which effect is usual by chance."""

_ROUNDS = 30
_TREES = {"objective": "binary", "num_leaves": 7, "max_bin": 63, "learning_rate": 0.2, "num_threads": 1, "verbose": -1}

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TwoSample:
    """A classifier two-sample test: can a classifier tell the window's rows from training rows?

    Attributes:
        auc: its area under the ROC curve on rows that it was not fitted on; 0.5 if it cannot.
        p_value: share of the permutations whose area is at least this; the rows as they are count as one of them.
    """

    auc: float
    p_value: float
    permutations: int


@dataclass(frozen=True)
class FeatureChange:
    """One feature in the window, beside the training rows.

    Attributes:
        effect: for a number, the Wasserstein distance divided by the training rows' interquartile range; for a
            category, the Jensen-Shannon distance, 0 to 1. If the share of missing values changed by more than this, the
            effect is that change.
        by_chance: the 95th percentile of the effect over random samples of training rows.
        outside: share of the window's rows whose value the function `outside` marks.
        change: the change in words, in the declared unit; None for a closed use case.
    """

    name: str
    title: str
    kind: Literal["number", "category"]
    effect: float
    by_chance: float
    outside: float
    change: str | None


def outside(training: Columns, window: Columns, is_open: bool) -> Mask:
    """Cells of the window whose value no training row has, of shape (rows, numbers + categories).

    For a number, that is a value below the smallest or above the largest one. A missing value is a value, too.

    Args:
        is_open: if not, a value must be that of `FEWEST` training rows, and `range_of` gives the range of a number:
            clients can choose the window's rows, and so find out each value that decides.
    """
    fewest = 1 if is_open else FEWEST
    cells = []
    for had, has in zip(training.numbers.T, window.numbers.T, strict=True):
        # As few as possible: a row is thin if any of its numbers is outside.
        known = range_of(had, is_open, outer=0)
        beyond = np.full(len(has), is_open) if known is None else (has < known.low) | (has > known.high)
        cells.append(np.where(np.isnan(has), np.isnan(had).sum() < fewest, beyond))
    for seen, mine in zip(training.codes.T, window.codes.T, strict=True):
        values, counts = np.unique(seen, return_counts=True)
        cells.append(~np.isin(mine, values[counts >= fewest]))
    return np.column_stack(cells)


def changes(use_case: UseCase, training: Columns, window: Columns, cells: Mask) -> tuple[FeatureChange, ...]:
    """Every feature's change, the largest effect beyond chance first.

    Args:
        cells: as `outside` gave them.
    """
    rng, shares = np.random.default_rng(0), iter(cells.mean(axis=0).tolist())
    draws = [rng.integers(len(training), size=len(window)) for _ in range(DRAWS)]
    found = []
    for number, before, now in zip(use_case.numbers, training.numbers.T, window.numbers.T, strict=True):
        effect = partial(_number_effect, number, before)
        by_chance = _usual([effect(before[draw]) for draw in draws])
        words = _number_words(number, before, now)
        found.append(FeatureChange(number.name, number.title, "number", effect(now), by_chance, next(shares), words))
    for category, had, has in zip(use_case.categories, training.codes.T, window.codes.T, strict=True):
        distance = partial(_category_effect, category, had)
        by_chance = _usual([distance(had[draw]) for draw in draws])
        words = _category_words(category, had, has)
        found.append(
            FeatureChange(category.name, category.title, "category", distance(has), by_chance, next(shares), words)
        )
    # In a small window, a category with many values has a large effect by chance alone.
    return tuple(sorted(found, key=lambda change: change.by_chance - change.effect))


def _usual(effects: list[float]) -> float:
    return float(np.quantile(effects, 0.95))


def _number_effect(number: Number, before: Floats, now: Floats) -> float:
    from scipy.stats import wasserstein_distance

    had, has = before[~np.isnan(before)], now[~np.isnan(now)]
    missing = abs(len(has) / len(now) - len(had) / len(before))
    if not (len(had) and len(has)):
        return missing
    low, high = np.quantile(had, (0.25, 0.75))
    # The range is 0 if half of the values are equal; the deviation, too, if all of them are.
    scale = float(high - low) or float(had.std()) or number.maximum - number.minimum
    return max(float(wasserstein_distance(had, has)) / scale, missing)


def _category_effect(category: Category, before: Codes, now: Codes) -> float:
    from scipy.spatial.distance import jensenshannon

    distance = float(jensenshannon(_shares(category, before), _shares(category, now), base=2))
    # Rounding may make the square of a distance of 0 negative.
    return 0.0 if np.isnan(distance) else distance


def _shares(category: Category, codes: Codes) -> Floats:
    """The share of each declared value, and of missing ones, of shape (values + 1,)."""
    # The code of a missing value, -1, becomes the last place.
    counts = np.bincount(codes % (len(category.values) + 1), minlength=len(category.values) + 1)
    shares: Floats = counts / len(codes)
    return shares


def _number_words(number: Number, before: Floats, now: Floats) -> str:
    def median(values: Floats) -> str:
        if np.isnan(values).all():
            return "no value"
        found = float(np.nanmedian(values))
        text = f"{found:,.0f}" if number.integer else f"{found:,.4g}"
        return f"{text} {number.unit}".rstrip()

    words = f"median {median(before)} → {median(now)}"
    missing = (float(np.isnan(values).mean()) for values in (before, now))
    gone = " → ".join(f"{share:.0%}" for share in missing)
    return words if gone == "0% → 0%" else f"{words}, missing {gone}"


def _category_words(category: Category, before: Codes, now: Codes) -> str:
    """The value whose share changed most."""
    was, is_ = _shares(category, before), _shares(category, now)
    place = int(np.abs(is_ - was).argmax())
    name = "missing" if place == len(category.choices) else category.choices[place].title
    return f"{name} {was[place]:.0%} → {is_[place]:.0%}"


def two_sample_test(training: Columns, window: Columns, seconds: float, permutations: int = PERMUTATIONS) -> TwoSample:
    """Test whether the window's rows come from the distribution of the training rows.

    Boosted trees are fitted on each half of all rows and tell the rows of the other half apart. A permutation mixes
    training rows and the window's rows and does the same again, so that the p-value is exact for any number of rows.

    Args:
        seconds: time after which no permutation begins.
    """
    import lightgbm

    cells = np.concatenate([np.column_stack([rows.numbers, rows.codes]) for rows in (training, window)])
    labels = np.repeat([0.0, 1.0], [len(training), len(window)])
    rng, began = np.random.default_rng(0), monotonic()
    halves = np.array_split(rng.permutation(len(labels)), 2)
    sets = [lightgbm.Dataset(cells[half], params=_TREES, free_raw_data=False).construct() for half in halves]

    def auc(classes: Floats) -> float:
        found = []
        for fitted, half, other in zip(sets, halves, halves[::-1], strict=True):
            fitted.set_label(classes[half])
            trees = lightgbm.train(_TREES, fitted, num_boost_round=_ROUNDS)
            found.append(_auc(classes[other], np.asarray(trees.predict(cells[other], num_threads=1))))
        return sum(found) / 2

    measured, as_large, done = auc(labels), 1, 0
    while done < permutations and monotonic() - began < seconds:
        as_large += auc(rng.permutation(labels)) >= measured
        done += 1
    return TwoSample(measured, as_large / (1 + done), done)


def _auc(classes: Floats, scores: Floats) -> float:
    from scipy.stats import rankdata

    ones = int(classes.sum())
    ranks = float(rankdata(scores)[classes > 0].sum())
    return (ranks - ones * (ones + 1) / 2) / (ones * (len(classes) - ones))
