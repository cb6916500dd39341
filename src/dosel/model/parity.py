"""The parity check: the ONNX backend must give the model's own answers on trial rows before it may answer requests."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dosel.model.encoding import Encoder
from dosel.model.onnx.classifier import OnnxClassifier
from dosel.rows.columns import Codes, Floats
from dosel.usecases import Number, UseCase

TOLERANCE = 1e-6
"""Largest accepted difference of a probability from the model's own."""

SAMPLED_ROWS = 4_096
THRESHOLD_ROWS = 12_288


@dataclass(frozen=True)
class ParityResult:
    """Result of a parity check: rows compared, labels that differ, largest difference of a probability."""

    rows: int
    differ: int
    furthest: float

    @property
    def holds(self) -> bool:
        # Written so that NaN fails.
        return not self.differ and self.furthest <= TOLERANCE

    def with_more(self, other: "ParityResult | None") -> "ParityResult":
        """The result over these rows and those of another result."""
        if other is None:
            return self
        return ParityResult(self.rows + other.rows, self.differ + other.differ, max(self.furthest, other.furthest))

    def __str__(self) -> str:
        labels = "no label differs" if not self.differ else f"{self.differ:,} labels differ"
        return f"{self.rows:,} rows: {labels}, probabilities differ by at most {self.furthest:.1e}"


def compare(truth: Floats, found: Floats, chosen: npt.NDArray[Any]) -> ParityResult:
    """Compare probabilities `found`, shape (rows, classes), and the classes `chosen` with the model's `truth`."""
    furthest = float(np.abs(found - truth).max()) if len(truth) else 0.0
    return ParityResult(len(truth), int((chosen != truth.argmax(axis=1)).sum()), furthest)


def trial_rows(use_case: UseCase, encoder: Encoder, compiled: OnnxClassifier | None) -> tuple[Floats, Codes]:
    """Valid rows as numbers and codes: drawn at random, and on both sides of the trees' thresholds."""
    rng = np.random.default_rng(0)
    edges: list[tuple[int, Floats]] = []
    for column, thresholds in compiled.thresholds() if compiled else ():
        if (found := encoder.decode(column, thresholds)) is not None:
            number, values = found
            edges.append((number, _beside(use_case.numbers[number], values)))
    count = sum(len(values) for _, values in edges)
    share = min(1.0, THRESHOLD_ROWS / max(count, 1))
    edges = [(i, rng.choice(v, max(1, int(len(v) * share)), replace=False)) for i, v in edges if len(v)]
    numbers, codes = _drawn(use_case, SAMPLED_ROWS + sum(len(values) for _, values in edges), rng)
    start = SAMPLED_ROWS
    for number, values in edges:
        numbers[start : start + len(values), number] = values
        start += len(values)
    if encoder.fills:
        lacking = rng.choice(len(numbers), len(numbers) // 16, replace=False)
        numbers[lacking, rng.integers(0, numbers.shape[1], len(lacking))] = np.nan
    # One row with an unknown value for each category.
    for i in range(codes.shape[1]):
        codes[i, i] = -1
    return numbers, codes


def _beside(number: Number, thresholds: Floats) -> Floats:
    """The nearest valid values on either side of each threshold."""
    if number.integer:
        sides = [np.floor(thresholds), np.ceil(thresholds)]
    else:
        sides = [np.nextafter(thresholds, -np.inf), thresholds, np.nextafter(thresholds, np.inf)]
    values = np.unique(np.concatenate(sides))
    return values[(values >= number.minimum) & (values <= number.maximum)]


def _drawn(use_case: UseCase, count: int, rng: np.random.Generator) -> tuple[Floats, Codes]:
    numbers = np.empty((count, len(use_case.numbers)))
    for i, number in enumerate(use_case.numbers):
        values = rng.uniform(number.minimum, number.maximum, count)
        numbers[:, i] = np.clip(np.rint(values), number.minimum, number.maximum) if number.integer else values
    codes = np.empty((count, len(use_case.categories)), np.intp)
    for i, category in enumerate(use_case.categories):
        codes[:, i] = rng.integers(0, len(category.values), count)
    return numbers, codes
