"""Approximate Shapley values of any model, sampled within a time budget, with standard errors.

Starting from a training row, features take the explained row's values one after the other in a random order; the
change at each step is a sample of that feature's contribution (Štrumbelj and Kononenko 2014). Every order is also used
backwards, from the same training row, which halves much of the variance (Mitchell, Cooper, Frank and Holmes 2022).
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from dosel.rows.columns import Floats

MOST_PAIRS = 4_096
"""Most pairs of orders: enough for three digits, so that a fast model stops before its budget ends."""

_FIRST, _LARGEST = 2, 256
"""Pairs of orders that are sampled between two time checks: initial number and maximum."""

CLOSED_BLOCK = 100
"""Pairs between two time checks for a closed use case. Also on a busy machine, each answer rests on whole blocks of
this many training rows."""

_ROWS_AT_ONCE = 20_000


@dataclass(frozen=True)
class Sampled:
    """Contributions, shape (features,); with `base` they add up to the output.

    `errors` are their standard errors, `pairs` the number of sampled pairs of orders.
    """

    values: Floats
    errors: Floats
    base: float
    pairs: int


def sampled(
    output: Callable[[Floats], Floats],
    row: Floats,
    background: Floats,
    seconds: float,
    seed: int = 0,
    block: int | None = None,
) -> Sampled:
    """Sample the contributions of a row's features to a model's output.

    Args:
        output: the model's output for rows of shape (rows, features), of shape (rows,).
        row: shape (features,).
        background: training rows, of shape (rows, features).
        seconds: time after which no more orders are sampled; at least one batch is.
        seed: of the orders of features and of training rows.
        block: sample this many pairs between two time checks; by default as many as the time allows.
    """
    rng, features = np.random.default_rng(seed), len(row)
    target = float(output(row[np.newaxis])[0])
    draws: list[Floats] = []
    bases: list[Floats] = []
    began = perf_counter()
    # Each row comes as often as the others: then the base is nearly their mean, however few orders there are.
    shuffled = rng.permutation(background)
    at_once = max(_ROWS_AT_ONCE // (2 * features), 1)
    pairs, size = 0, block or _FIRST
    while pairs <= MOST_PAIRS - (block or 1):
        size = min(size, MOST_PAIRS - pairs)
        for first in range(pairs, pairs + size, at_once):
            places = np.arange(first, min(first + at_once, pairs + size))
            drawn, base = _pairs(output, row, target, shuffled[places % len(shuffled)], rng)
            draws.append(drawn)
            bases.append(base)
        pairs += size
        spent = perf_counter() - began
        fits = int(pairs / spent * (seconds - spent))
        if fits < (block or 1):
            break
        size = block or min(max(fits // 2, 1), _LARGEST, at_once)
    values = np.concatenate(draws)
    errors = values.std(axis=0, ddof=1) / np.sqrt(pairs)
    return Sampled(values.mean(axis=0), errors, float(np.concatenate(bases).mean()), pairs)


def _pairs(
    output: Callable[[Floats], Floats], row: Floats, target: float, over: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Samples of the contributions, shape (pairs, features), and of the base, shape (pairs,)."""
    pairs, features = over.shape
    # The step of each feature in an order, forwards and backwards.
    ranks = rng.permuted(np.tile(np.arange(features), (pairs, 1)), axis=1)
    ranks = np.stack([ranks, features - 1 - ranks], axis=1)
    # Before step s, those of lower rank have the row's values: axes are pair, direction, step, feature.
    taken = ranks[:, :, np.newaxis, :] < np.arange(features)[:, np.newaxis]
    mixed = np.where(taken, row, over[:, np.newaxis, np.newaxis, :])
    found = output(mixed.reshape(-1, features)).reshape(pairs, 2, features)
    steps = np.diff(found, axis=2, append=target)
    return np.take_along_axis(steps, ranks, axis=2).mean(axis=1), found[:, 0, 0]
