"""Contributions of the declared features to an answer: exact if the model allows, otherwise sampled within a budget."""

import logging
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from dosel.explain.columns import NO_FEATURE, owners
from dosel.explain.exact import Exact, exact
from dosel.explain.sampling import CLOSED_BLOCK, sampled
from dosel.model.predictor import Backend, Predictor
from dosel.model.reference import Reference
from dosel.rows.columns import Floats

BACKGROUND = 1_000
"""Number of training rows that contributions are measured against."""

BACKENDS: tuple[Backend, ...] = ("onnx", "scikit-learn")
TIMED = 50
"""Number of rows on which the backends are timed."""

AGREES = 1e-3
"""Largest accepted difference between an exact explanation and the probability it explains, computed in different
libraries."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contribution:
    """A feature's part of the probability. `error` is its standard error; None if it is exact."""

    feature: str
    contribution: float
    error: float | None


@dataclass(frozen=True)
class Contributions:
    """Contributions, the largest first; with `base` they add up to `output`, the probability of the explained class.

    Attributes:
        base: the class's mean probability over training rows.
        seconds: time that the explanation took.
        draws: number of sampled orders; None if the contributions are exact.
    """

    method: str
    exact: bool
    base: float
    output: float
    features: tuple[Contribution, ...]
    draws: int | None
    seconds: float


class Contributor:
    """Explains the answers of one model.

    For a closed use case, each sampled explanation rests on blocks of `CLOSED_BLOCK` training rows.

    Args:
        seed: chooses the training rows and their order; secret for a closed use case.
    """

    def __init__(self, predictor: Predictor, reference: Reference, seed: int) -> None:
        drawn = np.random.default_rng(seed).choice(len(reference), min(BACKGROUND, len(reference)), replace=False)
        self._names = predictor.use_case.feature_names
        self._seed = seed
        self._block = None if predictor.use_case.expose_training_rows else CLOSED_BLOCK
        self._predictor = predictor
        self._background = reference.matrix(drawn)
        self._exact: Exact | None = None
        self._owners = owners(predictor)
        if self._owners is not None:
            self._exact = exact(predictor.model[-1])
        self._backend = self._faster()

    def explain(self, row: Floats, encoded: Floats, chosen: int, budget: float) -> Contributions | None:
        """Explain the class with index `chosen`; None if a closed use case has too few training rows for that.

        Args:
            row: as `Predictor.matrix` has it, of shape (1, features).
            encoded: the same after the model's preprocessing, of shape (1, width).
            budget: seconds for what is not exact.
        """
        began = perf_counter()
        found = self._exactly(row, encoded, chosen) or self._drawn(row, chosen, budget)
        return found and replace(found, seconds=perf_counter() - began)

    def _exactly(self, row: Floats, encoded: Floats, chosen: int) -> Contributions | None:
        if self._exact is None or self._owners is None:
            return None
        columns = self._exact.of(encoded, chosen)
        answered = float(self._predictor.probabilities(row)[0, chosen])
        if not abs(columns.probability - answered) <= AGREES:
            log.warning(
                "%s explains a probability of %.4f, but the model answers %.4f; the explanation is not used",
                self._exact.method,
                columns.probability,
                answered,
            )
            return None
        values = np.zeros(len(self._names))
        owned = self._owners != NO_FEATURE
        np.add.at(values, self._owners[owned], columns.values[owned])
        return self._made(self._exact.method, columns.base, values, None, None)

    def _drawn(self, row: Floats, chosen: int, budget: float) -> Contributions | None:
        if self._block and len(self._background) < self._block:
            return None

        def output(rows: Floats) -> Floats:
            return self._predictor.probabilities(rows, self._backend)[:, chosen]

        found = sampled(output, row[0], self._background, budget, self._seed, self._block)
        return self._made("sampled Shapley values", found.base, found.values, found.errors, 2 * found.pairs)

    def _faster(self) -> Backend:
        """The backend that predicts many rows faster: for nearest neighbours, scikit-learn is far faster than ONNX."""
        seconds: dict[Backend, float] = {}
        for backend in BACKENDS:
            began = perf_counter()
            self._predictor.probabilities(self._background[:TIMED], backend)
            seconds[backend] = perf_counter() - began
        return min(BACKENDS, key=lambda backend: seconds[backend])

    def _made(
        self, method: str, base: float, values: Floats, errors: Floats | None, draws: int | None
    ) -> Contributions:
        by_size = np.argsort(-np.abs(values), kind="stable")
        features = tuple(
            Contribution(self._names[i], float(values[i]), None if errors is None else float(errors[i]))
            for i in by_size
        )
        return Contributions(method, errors is None, base, base + float(values.sum()), features, draws, seconds=0.0)
