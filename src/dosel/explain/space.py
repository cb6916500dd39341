"""Training rows after the model's preprocessing: nearest neighbours and principal components."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dosel.model.reference import Reference
from dosel.rows.columns import Floats

Singles = npt.NDArray[np.float32]

SHOWN = 500
"""Number of training rows in the picture."""

PICTURED = 50_000
"""Most training rows that the principal components are computed from."""

DECIMALS = 4
"""Decimals of a coordinate."""

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
        pictured = _drawn(rng, len(reference), PICTURED)
        self._pca = PCA(min(2, self._rows.shape[1]), svd_solver="covariance_eigh")
        self._pca.fit(self._rows[pictured].astype(np.float64))
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

    def projection(self, encoded: Floats) -> PrincipalComponents:
        """The principal components of one row of shape (1, width)."""
        [row] = self._projected(encoded)
        shares = [*self._pca.explained_variance_ratio_.tolist(), 0.0]
        return PrincipalComponents((row[0], row[1]), (shares[0], shares[1]), self._sample)

    def _points(self, places: npt.NDArray[np.intp]) -> tuple[Point, ...]:
        projected = self._projected(self._rows[places].astype(np.float64))
        codes = self._classes[places].tolist()
        return tuple(Point(x, y, code) for (x, y), code in zip(projected, codes, strict=True))

    def _projected(self, encoded: Floats) -> list[list[float]]:
        found = self._pca.transform(encoded)
        # A single column has one component.
        both = np.column_stack([found, np.zeros((len(found), 2 - found.shape[1]))])
        listed: list[list[float]] = both.round(DECIMALS).tolist()
        return listed


def _drawn(rng: np.random.Generator, count: int, most: int) -> npt.NDArray[np.intp]:
    return np.sort(rng.choice(count, most, replace=False)) if count > most else np.arange(count)
