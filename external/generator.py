"""Generates Covertype rows from published statistics, for machines that cannot download the real ones.

Each class gets its share of the rows. The generator then draws a row's area and soil together, given the class. Six
measurements follow from a Gaussian copula with the rank correlations within a class. Then come the aspect and the
hillshades, which the position of the sun determines from slope and aspect. A model learns much the same from these rows
as from the real ones.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from external import published
from external.columns import AREAS, CLASSES, COLUMNS, COVER, ELU, NUMERIC, SOIL, WILDERNESS, coded

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

_MEASURED = tuple(published.MEANS)


def generate(rows: int, seed: int) -> pd.DataFrame:
    """`rows` coded rows (see `external.columns`) in random order, the same for the same `rows` and `seed`."""
    rng = np.random.default_rng(seed)
    joint = _joint()
    cover, area, soil = _places(rng, rows, joint)
    values = _measurements(rng, joint, cover, area, soil)
    values["Aspect"] = _aspects(rng, cover)
    values |= _hillshades(rng, values["Slope"], values["Aspect"])

    table = np.empty((rows, len(COLUMNS)), dtype=np.int16)
    for position, name in enumerate(NUMERIC):
        table[:, position] = np.clip(np.rint(values[name]), *published.RANGES[name])
    table[:, COLUMNS.index(WILDERNESS)] = area + 1
    table[:, COLUMNS.index(SOIL)] = soil + 1
    table[:, COLUMNS.index(COVER)] = cover + 1
    return coded(table)


def _places(rng: np.random.Generator, rows: int, joint: Floats) -> tuple[Integers, Integers, Integers]:
    """Class, area and soil of each row, counted from 0.

    Classes are assigned by quota and not at random, so that a small set has the rare ones too; the order is shuffled,
    so that every slice of the set has all classes.
    """
    counts = np.array(published.CLASS_COUNTS)
    bounds = np.rint(rows * np.cumsum(counts) / counts.sum()).astype(np.intp)
    cover = rng.permutation(np.repeat(np.arange(CLASSES), np.diff(bounds, prepend=0)))

    cells = joint.reshape(CLASSES, -1)
    cumulative = np.cumsum(cells / cells.sum(axis=1, keepdims=True), axis=1)
    cell = np.empty(rows, dtype=np.intp)
    draws = rng.random(rows)
    for number in range(CLASSES):
        mine = cover == number
        # Rounding may leave the last sum a hair below 1.
        cell[mine] = np.searchsorted(cumulative[number, :-1], draws[mine], side="right")
    area, soil = np.divmod(cell, len(ELU))
    return cover, area, soil


def _joint() -> Floats:
    """Expected rows of each class, area and soil, shape `(7, 4, 40)`."""
    joint = np.zeros((CLASSES, len(AREAS), len(ELU)))
    for (cover, area), text in published.SOILS.items():
        for pair in text.split():
            code, _, share = pair.partition(":")
            joint[cover - 1, area - 1, ELU.index(int(code))] = float(share)
        shares = joint[cover - 1, area - 1]
        shares *= published.AREA_COUNTS[cover - 1][area - 1] / shares.sum()
    return joint


def _measurements(
    rng: np.random.Generator, joint: Floats, cover: Integers, area: Integers, soil: Integers
) -> dict[str, Floats]:
    """Elevation, slope and the four distances, in metres and degrees, not yet rounded."""
    share = joint / joint.sum(axis=(1, 2), keepdims=True)
    factor = np.linalg.cholesky(np.array(published.CORRELATIONS))
    normal = dict(zip(_MEASURED, factor @ rng.standard_normal((len(_MEASURED), len(cover))), strict=True))

    heights = np.array([published.SOIL_HEIGHTS.get(code, 0) for code in ELU], dtype=np.float64)
    offset = share.sum(axis=1) @ heights
    between = share.sum(axis=1) @ heights**2 - offset**2
    mean = np.array(published.MEANS["Elevation"]) - offset
    within = np.sqrt(np.array(published.DEVIATIONS["Elevation"]) ** 2 - between)
    values = {"Elevation": mean[cover] + heights[soil] + within[cover] * normal["Elevation"]}

    vertical = "Vertical_Distance_To_Hydrology"
    for name in _MEASURED[1:]:
        mean, deviation = np.array(published.MEANS[name]), np.array(published.DEVIATIONS[name])
        if name == vertical:
            mean, deviation = _above_water(mean, deviation)
        remoteness = np.array(published.REMOTENESS.get(name, (1.0,) * len(AREAS)))
        scale = remoteness[area] / (share.sum(axis=2) @ remoteness)[cover]
        values[name] = scale * _gamma(mean[cover], deviation[cover], normal[name])

    below = rng.random(len(cover)) < published.BELOW_WATER
    values[vertical][below] *= -published.DEPTH_BELOW_WATER
    values[vertical][values["Horizontal_Distance_To_Hydrology"] < 0.5] = 0
    return values


def _above_water(mean: Floats, deviation: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation before some heights become negative, such that the final ones are `mean` and `deviation`."""
    below, depth = published.BELOW_WATER, published.DEPTH_BELOW_WATER
    before = mean / (1 - below - below * depth)
    square = (mean**2 + deviation**2) / (1 - below + below * depth**2)
    return before, np.sqrt(square - before**2)


def _gamma(mean: Floats, deviation: Floats, normal: Floats) -> Floats:
    """Gamma variates with this mean and deviation, from standard normal ones.

    Wilson and Hilferty (1931): the cube root of a gamma variate is close to normal. Where the shape is small, some of
    the mass ends at 0 exactly, as it does for distances to water.
    """
    shape = (mean / deviation) ** 2
    root = 1 - 1 / (9 * shape) + normal / (3 * np.sqrt(shape))
    cubed: Floats = mean * np.maximum(root, 0.0) ** 3
    return cubed


def _aspects(rng: np.random.Generator, cover: Integers) -> Floats:
    """Degrees clockwise from north, from one von Mises distribution for each class."""
    direction, length = np.array(published.ASPECTS, dtype=np.float64).T
    # Fisher (1993), Statistical Analysis of Circular Data, p. 88; for lengths below 0.53 within 1 %.
    concentration = 2 * length + length**3 + 5 * length**5 / 6
    angle = rng.vonmises(np.radians(direction)[cover], concentration[cover])
    degrees: Floats = np.degrees(angle) % 360
    return degrees


def _hillshades(rng: np.random.Generator, slope: Floats, aspect: Floats) -> dict[str, Floats]:
    """Illumination of the slope at three times of day, 0-255, by the formula of relief shading (Horn, 1981)."""
    steepness, facing = np.radians(slope), np.radians(aspect)
    shades = {}
    for name, (zenith, azimuth, noise) in published.SUNS.items():
        sun = np.radians(zenith)
        turned = np.cos(np.radians(azimuth) - facing)
        light = np.cos(sun) * np.cos(steepness) + np.sin(sun) * np.sin(steepness) * turned
        shades[name] = 255 * light + noise * rng.standard_normal(len(slope))
    return shades
