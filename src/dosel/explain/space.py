"""Training rows after the model's preprocessing: nearest neighbours and principal components."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dosel.model.reference import Reference
from dosel.rows.columns import Floats

Singles = npt.NDArray[np.float32]

SHOWN = 500
"""Number of training rows in the picture."""

MOST_FITTED = 50_000
"""Most training rows that the principal components are computed from."""

DECIMALS = 4
"""Decimals of a coordinate."""

MEASURED = 200
"""Number of training rows whose distance to their nearest other row is measured."""

PIECE = 50_000
"""Rows that are encoded together."""


@dataclass(frozen=True)
class Point:
    """A training row in the picture, with its class code."""

    x: float
    y: float
    code: int


@dataclass(frozen=True)
class PrincipalComponents:
    """The coordinates of a row and of a sample of training rows along the first two principal components.

    `explained` is each component's share of the training rows' variance.
    """

    row: tuple[float, float]
    explained: tuple[float, float]
    sample: tuple[Point, ...]


@dataclass(frozen=True)
class Neighbour:
    """A near training row: its index among the reference rows, its distance and its point in the picture."""

    place: int
    distance: float
    point: Point


class Space:
    """Reference rows after a fitted preprocessing, in float32.

    Args:
        encode: the preprocessing: from rows as numbers to shape (rows, width).
    """

    def __init__(self, encode: Callable[[Floats], Floats], reference: Reference) -> None:
        from sklearn.decomposition import PCA

        self._classes = reference.classes
        pieces = [
            encode(reference.matrix(np.arange(start, min(start + PIECE, len(reference))))).astype(np.float32)
            for start in range(0, len(reference), PIECE)
        ]
        self._rows: Singles = np.concatenate(pieces)
        self._norms: Singles = np.einsum("ij,ij->i", self._rows, self._rows)
        rng = np.random.default_rng(0)
        fitted = _drawn(rng, len(reference), MOST_FITTED)
        self._pca = PCA(svd_solver="covariance_eigh")
        self._pca.fit(self._rows[fitted].astype(np.float64))
        self._fitted = fitted
        self._sample = self._points(_drawn(rng, len(reference), SHOWN))

    def nearest(self, encoded: Floats, count: int) -> tuple[Neighbour, ...]:
        """The nearest rows by Euclidean distance, nearest first; among equal distances the earlier row first.

        Args:
            encoded: one row in this space, shape (1, width).
        """
        wanted = encoded[0].astype(np.float32)
        own = float(wanted @ wanted)
        # |a - b|² = |a|² - 2ab + |b|² needs one pass over memory but has rounding errors: every row that may be among
        # the nearest within them is measured again exactly.
        rough = self._norms - 2 * (self._rows @ wanted)
        count = min(count, len(rough))
        off = 4 * len(wanted) * float(np.finfo(np.float32).eps) * (float(self._norms.max()) + own)
        near = np.flatnonzero(rough <= np.partition(rough, count - 1)[count - 1] + off)
        apart = self._rows[near].astype(np.float64) - wanted
        distances = np.sqrt(np.einsum("ij,ij->i", apart, apart))
        order = np.lexsort((near, distances))[:count]
        points = self._points(near[order])
        return tuple(
            Neighbour(int(near[i]), float(distances[i]), point) for i, point in zip(order, points, strict=True)
        )

    @cached_property
    def usual_distance(self) -> float:
        """The distance within which 99 % of a sample of the rows have another row."""
        drawn = _drawn(np.random.default_rng(0), len(self._rows), MEASURED)
        found = []
        for place in drawn:
            squared = self._norms + self._norms[place] - 2 * (self._rows @ self._rows[place])
            squared[place] = np.inf
            found.append(max(float(squared.min()), 0.0))
        return float(np.sqrt(np.quantile(found, 0.99)))

    def is_outlier(self, encoded: Floats, fewest: int) -> bool:
        """Whether a row of shape (1, width) is farther from the middle than all but 0.1 % of the rows.

        The distance is Mahalanobis': in units of the rows' spread, in all directions in which they spread at all.

        Args:
            fewest: number of rows that are left out, at least, so that no single one decides.
        """
        return bool(self._spreads(encoded)[0] > self._farthest(fewest))

    def _farthest(self, fewest: int) -> float:
        left_out = max(fewest, round(0.001 * len(self._all_spreads)))
        return float(self._all_spreads[-left_out - 1]) if left_out < len(self._all_spreads) else np.inf

    @cached_property
    def _all_spreads(self) -> Floats:
        """The squared Mahalanobis distances of the rows that the components were computed from, sorted."""
        return np.sort(self._spreads(self._rows[self._fitted].astype(np.float64)))

    def _spreads(self, encoded: Floats) -> Floats:
        variances = self._pca.explained_variance_
        spread = variances > 1e-9 * variances.sum()
        found: Floats = (self._pca.transform(encoded)[:, spread] ** 2 / variances[spread]).sum(axis=1)
        return found

    def projection(self, encoded: Floats) -> PrincipalComponents:
        """The coordinates along the first two principal components of one row of shape (1, width)."""
        [row] = self._projected(encoded)
        shares = [*self._pca.explained_variance_ratio_[:2].tolist(), 0.0]
        return PrincipalComponents((row[0], row[1]), (shares[0], shares[1]), self._sample)

    def _points(self, places: npt.NDArray[np.intp]) -> tuple[Point, ...]:
        projected = self._projected(self._rows[places].astype(np.float64))
        codes = self._classes[places].tolist()
        return tuple(Point(x, y, code) for (x, y), code in zip(projected, codes, strict=True))

    def _projected(self, encoded: Floats) -> list[list[float]]:
        found = self._pca.transform(encoded)[:, :2]
        # A single column has one component.
        both = np.column_stack([found, np.zeros((len(found), 2 - found.shape[1]))])
        listed: list[list[float]] = both.round(DECIMALS).tolist()
        return listed


def _drawn(rng: np.random.Generator, count: int, most: int) -> npt.NDArray[np.intp]:
    return np.sort(rng.choice(count, most, replace=False)) if count > most else np.arange(count)
