"""Finds the declared feature that each encoded column comes from, by changing one feature at a time."""

from typing import Any

import numpy as np
import numpy.typing as npt

from dosel.model.predictor import Predictor
from dosel.usecases import Feature, Number

NO_FEATURE = -1
"""Stands for the owner of an encoded column that no feature changes."""


def owners(predictor: Predictor) -> npt.NDArray[np.intp] | None:
    """Each encoded column's feature, by index in the declaration; None if a column mixes several features."""
    use_case = predictor.use_case
    example = use_case.example
    changed = [
        (place, example | {feature.name: value})
        for place, feature in enumerate(use_case.features)
        for value in _values(feature)
    ]
    encoded = predictor.encoded(predictor.matrix([example, *(row for _, row in changed)]))
    differs = encoded[1:] != encoded[0]
    found = np.full(encoded.shape[1], NO_FEATURE, np.intp)
    for (place, _), moved in zip(changed, differs, strict=True):
        if ((found[moved] != NO_FEATURE) & (found[moved] != place)).any():
            return None
        found[moved] = place
    return found


def _values(feature: Feature) -> tuple[Any, ...]:
    return (feature.minimum, feature.maximum) if isinstance(feature, Number) else feature.values
