"""A fitted IterativeImputer as arrays, which fills in missing numbers as scikit-learn does, without scikit-learn."""

from typing import Any, Self

import msgspec
import numpy as np

from dosel.rows.columns import Floats


class NotAsArrays(Exception):
    """The imputer does something that its arrays do not say; the message names it."""


class Filling(msgspec.Struct, frozen=True):
    """One step: a column is predicted from the others, linearly, and clipped where it is bounded."""

    column: int
    others: list[int]
    weights: list[float]
    intercept: float
    low: float | None
    high: float | None


class Imputer(msgspec.Struct, frozen=True):
    """What an IterativeImputer has learned: each column's first guess, and the steps in their order."""

    guesses: list[float]
    steps: list[Filling]

    @classmethod
    def of(cls, fitted: Any) -> Self:
        """Read a fitted IterativeImputer.

        Raises:
            NotAsArrays: it samples, marks missing values, drops columns, or predicts other than linearly.
        """
        if fitted.add_indicator or fitted.sample_posterior or fitted._is_empty_feature.any():
            raise NotAsArrays("an imputer that samples, adds columns or drops some")
        steps = []
        for column, others, estimator in fitted.imputation_sequence_ if fitted.n_iter_ else ():
            if type(estimator).__name__ != "BayesianRidge":
                raise NotAsArrays(f"an imputer that predicts by {type(estimator).__name__}")
            low, high = (float(bounds[column]) for bounds in (fitted._min_value, fitted._max_value))
            steps.append(
                Filling(
                    int(column),
                    np.asarray(others).tolist(),
                    estimator.coef_.tolist(),
                    float(estimator.intercept_),
                    low if np.isfinite(low) else None,
                    high if np.isfinite(high) else None,
                )
            )
        return cls(fitted.initial_imputer_.statistics_.tolist(), steps)

    def transform(self, rows: Floats) -> Floats:
        """The rows, of shape (rows, columns), with their missing numbers filled in."""
        missing = np.isnan(rows)
        filled = np.where(missing, self.guesses, rows)
        if missing.all():
            return filled
        for step in self.steps:
            lacking = missing[:, step.column]
            if lacking.any():
                found = filled[lacking][:, step.others] @ np.array(step.weights) + step.intercept
                filled[lacking, step.column] = np.clip(found, step.low, step.high)
        return filled
