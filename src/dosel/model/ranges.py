"""The range of a number among the training rows; of a closed use case, one that no single row decides about."""

from dataclasses import dataclass
from math import floor, log10

import numpy as np

from dosel.rows.columns import Floats

FEWEST = 10
"""Training rows of a closed use case on which each statement about their values rests, at least."""

OUTER, MOST_OUTER = 0.01, 0.1
"""For closed use cases: the share of training rows that a range leaves out on each side, and its maximum."""


@dataclass(frozen=True)
class ValueRange:
    """Inclusive bounds that hold for `share` of the training rows that have a value."""

    low: float
    high: float
    share: float


def range_of(values: Floats, is_open: bool, outer: float = OUTER) -> ValueRange | None:
    """The range of a number's values, of shape (rows,), NaN where one is missing; None with too few values.

    Of a closed use case, it leaves out the share `outer` and at least `FEWEST` values on either side, and is rounded
    outward to two digits: somebody who asks often enough finds each bound.
    """
    known = np.sort(values[~np.isnan(values)])
    left_out = 0 if is_open else max(FEWEST, round(outer * len(known)))
    if len(known) == 0 or left_out > MOST_OUTER * len(known):
        return None
    low, high = float(known[left_out]), float(known[-left_out - 1])
    if is_open:
        return ValueRange(low, high, 1.0)
    return ValueRange(_outward(low, -1), _outward(high, 1), 1 - 2 * left_out / len(known))


def _outward(value: float, direction: int) -> float:
    """A value rounded to two digits, away from the middle."""
    if value == 0:
        return 0.0
    step = 10.0 ** (floor(log10(abs(value))) - 1)
    return direction * float(np.ceil(round(direction * value / step, 9))) * step
