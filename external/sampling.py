"""Samples the rows of a batch."""

import numpy as np
import pandas as pd

SLICES = 10


def draw(rows: pd.DataFrame, slice_number: int, fraction: float, seed: tuple[int, ...]) -> pd.DataFrame:
    """A random sample, without replacement, of one tenth of the rows.

    The tenths have equal sizes and follow the order of the rows; up to nine remaining rows belong to none, as in
    the course's API.

    Args:
        rows: at least `SLICES` of them.
        slice_number: which tenth, 0 to 9.
        fraction: the share of the tenth, rounded down but never to nothing; 1 is the whole tenth, in its order.
        seed: equal seeds draw equal samples.
    """
    size = len(rows) // SLICES
    tenth = rows.iloc[slice_number * size : (slice_number + 1) * size]
    if fraction == 1:
        return tenth
    # 0.29 * 100 is 28.999... in floating point.
    count = max(1, int(size * fraction + 1e-9))
    return tenth.iloc[np.random.default_rng(seed).choice(size, count, replace=False)]
