"""Warns of a row that is unlike the training rows: a value outside of theirs, or a row far from all of them.

For a closed use case, no warning depends on fewer than `FEWEST` training rows, however often somebody asks: its bounds
leave that many rows out on either side and are rounded, and its distance is that from the middle of up to 50,000
rows, in units of their spread.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dosel.explain.space import Space
from dosel.model.ranges import FEWEST, range_of
from dosel.model.reference import Reference
from dosel.rows.columns import Floats
from dosel.usecases import Feature, Number, UseCase


@dataclass(frozen=True)
class Unusual:
    """A sentence about a value of the row; about the whole row if `feature` is None."""

    feature: str | None
    message: str


class TrainingRanges:
    """What the training rows have: bounds of each number, and the values of each category."""

    def __init__(self, use_case: UseCase, reference: Reference, space: Space) -> None:
        matrix = reference.matrix(np.arange(len(reference)))
        self._use_case = use_case
        self._space = space
        self._is_open = use_case.expose_training_rows
        self._bounds = {
            feature.name: range_of(matrix[:, place], self._is_open)
            for place, feature in enumerate(use_case.features)
            if isinstance(feature, Number)
        }
        fewest = 1 if self._is_open else FEWEST
        self._known = {
            feature.name: {
                value for code, value in enumerate(feature.values) if (matrix[:, place] == code).sum() >= fewest
            }
            for place, feature in enumerate(use_case.features)
            if not isinstance(feature, Number)
        }

    def warnings(self, row: Mapping[str, Any], encoded: Floats, nearest: float) -> tuple[Unusual, ...]:
        """What is unusual about a row.

        Args:
            encoded: the row in the model's space, of shape (1, width).
            nearest: the distance of the nearest training row.
        """
        found = [
            Unusual(feature.name, message)
            for feature in self._use_case.features
            if row[feature.name] is not None and (message := self._about(feature, row[feature.name]))
        ]
        if message := self._far(encoded, nearest):
            found.append(Unusual(None, message))
        return tuple(found)

    def _about(self, feature: Feature, value: Any) -> str:
        if not isinstance(feature, Number):
            shown = next(choice.title for choice in feature.choices if choice.value == value)
            few = "no training row has" if self._is_open else "hardly a training row has"
            return "" if value in self._known[feature.name] else f"{feature.title} {shown}: {few} this value"
        bounds = self._bounds[feature.name]
        if bounds is None or bounds.low <= value <= bounds.high:
            return ""
        whose = "training rows" if self._is_open else f"{bounds.share:.0%} of the training rows"
        unit = f" {feature.unit}" if feature.unit else ""
        return f"{feature.title} {value:g}{unit}: {whose} have {bounds.low:g} to {bounds.high:g}{unit}"

    def _far(self, encoded: Floats, nearest: float) -> str:
        if not self._is_open:
            far = self._space.is_outlier(encoded, FEWEST)
            return "the row is far from the training rows as a whole" if far else ""
        usual = self._space.usual_distance
        if nearest <= usual:
            return ""
        return (
            f"the nearest training row is at distance {nearest:.2f}; 99 % of the training rows have another one within "
            f"{usual:.2f}"
        )
