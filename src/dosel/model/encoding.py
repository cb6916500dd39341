"""A fitted preprocessing without DataFrames: it gives the same numbers as scikit-learn's.

Numbers are scaled in float64, by the same operations as in scikit-learn, so that no bit differs. (A whole pipeline
converted to ONNX scales in float32: rows next to a tree's threshold would take the other branch.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from dosel.model.imputing import Imputer, NotAsArrays
from dosel.rows.columns import Codes, Floats
from dosel.usecases import UseCase


class NotEncodable(Exception):
    """The encoder does not support a step; the message names the step."""


@dataclass(frozen=True)
class _Scaled:
    """Scales the numbers `source` into the encoded columns `place`.

    The result is (x - shift) / scale, or x * scale + shift if `minmax`.
    """

    source: slice | Codes
    place: slice
    shift: Floats
    scale: Floats
    minmax: bool

    def apply(self, numbers: Floats) -> Floats:
        values: Floats = numbers[:, self.source]
        return values * self.scale + self.shift if self.minmax else (values - self.shift) / self.scale

    def undo(self, column: int, values: Floats) -> Floats:
        shift, scale = float(self.shift[column]), float(self.scale[column])
        return (values - shift) / scale if self.minmax else values * scale + shift


class ScaledStep(msgspec.Struct, frozen=True):
    """Declared numbers whose encoded columns are adjacent, beginning at `start`, scaled as `_Scaled` says."""

    columns: list[str]
    start: int
    shift: list[float]
    scale: list[float]
    minmax: bool


class OneHotStep(msgspec.Struct, frozen=True):
    """A declared category whose known values have a column each, from `start`; None for a value that is no text."""

    column: str
    start: int
    known: list[str | None]


class ImputedStep(msgspec.Struct, frozen=True):
    """Declared numbers whose missing values are filled in before they are scaled."""

    columns: list[str]
    imputer: Imputer


class FittedSteps(msgspec.Struct):
    """A fitted preprocessing as values, by the names of the declared columns. `width` counts the encoded columns."""

    width: int = 0
    scaled: list[ScaledStep] = []
    one_hot: list[OneHotStep] = []
    imputed: list[ImputedStep] = []


class StoredEncoder(msgspec.Struct):
    """A model's classes, in the order of its probabilities, and its preprocessing."""

    classes: list[int]
    steps: FittedSteps


def fitted_steps(use_case: UseCase, fitted: Any) -> FittedSteps:
    """Take over a fitted `ColumnTransformer`.

    Raises:
        NotEncodable: a step is not IterativeImputer, StandardScaler, MinMaxScaler or OneHotEncoder as
            `dosel.training.preprocessing` has them.
    """
    if type(fitted).__name__ != "ColumnTransformer":
        raise NotEncodable(f"preprocessing by {type(fitted).__name__}")
    steps = FittedSteps()
    _take(use_case, steps, fitted, use_case.feature_names, slice(0, 0))
    return steps


def _take(use_case: UseCase, steps: FittedSteps, step: Any, columns: Sequence[str], place: slice) -> None:
    """Read a fitted step whose input is `columns` and whose output begins at `place.start`."""
    numbers = {number.name for number in use_case.numbers}
    categories = {category.name for category in use_case.categories}
    steps.width = max(steps.width, place.stop)
    match type(step).__name__:
        case "ColumnTransformer":
            for name, inner, picked in step.transformers_:
                names = [columns[column] if isinstance(column, int) else column for column in picked]
                within = step.output_indices_[name]
                if names and inner != "drop":
                    inside = slice(place.start + within.start, place.start + within.stop)
                    _take(use_case, steps, inner, names, inside)
        case "Pipeline" if len(step) == 2 and set(columns) <= numbers:
            steps.imputed.append(ImputedStep(list(columns), _imputer(step[0])))
            _take(use_case, steps, step[1], columns, place)
        case "StandardScaler" | "MinMaxScaler" if set(columns) <= numbers:
            steps.scaled.append(_scaling(step, list(columns), place.start))
        case "OneHotEncoder" if set(columns) <= categories and _is_plain(step):
            start = place.start
            for column, known in zip(columns, step.categories_, strict=True):
                texts = [str(value) if isinstance(value, str) else None for value in known]
                steps.one_hot.append(OneHotStep(column, start, texts))
                start += len(known)
        case other:
            raise NotEncodable(f"{other} of {', '.join(map(str, columns))}")


class Encoder:
    """Encodes rows as a fitted preprocessing does.

    Rows come as the `numbers` and `codes` of `dosel.rows.columns`.
    """

    def __init__(self, use_case: UseCase, steps: FittedSteps) -> None:
        self.steps = steps
        self.width = steps.width
        numbers = [number.name for number in use_case.numbers]
        categories = {category.name: (i, category) for i, category in enumerate(use_case.categories)}
        self._scaled = [_placed(step, [numbers.index(column) for column in step.columns]) for step in steps.scaled]
        self._fillers = [(np.array([numbers.index(c) for c in step.columns]), step.imputer) for step in steps.imputed]
        self._places: list[tuple[int, Codes]] = []
        for step in steps.one_hot:
            i, category = categories[step.column]
            found = {value: step.start + k for k, value in enumerate(step.known)}
            # One more at the end: the place of code -1.
            self._places.append((i, np.array([*(found.get(v, -1) for v in category.values), -1])))
        filled = {int(column) for columns, _ in self._fillers for column in columns}
        self.fills = bool(numbers) and len(filled) == len(numbers)
        """Whether any number may be missing (NaN)."""

    def encode(self, numbers: Floats, codes: Codes, dtype: Any = np.float64) -> npt.NDArray[Any]:
        """The encoded rows, of shape (rows, `width`): scaled in float64, then rounded to `dtype`."""
        encoded = np.zeros((len(numbers), self.width), dtype)
        for columns, filler in self._fillers:
            numbers = _filled(numbers, columns, filler)
        for scaled in self._scaled:
            encoded[:, scaled.place] = scaled.apply(numbers)
        if len(numbers) == 1:
            for i, places in self._places:
                if (place := places[codes[0, i]]) >= 0:
                    encoded[0, place] = 1
            return encoded
        for i, places in self._places:
            place = places[codes[:, i]]
            known = np.flatnonzero(place >= 0)
            encoded[known, place[known]] = 1
        return encoded

    def decode(self, column: int, values: Floats) -> tuple[int, Floats] | None:
        """The declared number in an encoded column, and its `values` before scaling; None for other columns."""
        for scaled in self._scaled:
            if scaled.place.start <= column < scaled.place.stop:
                k = column - scaled.place.start
                source = scaled.source.start + k if isinstance(scaled.source, slice) else int(scaled.source[k])
                return source, scaled.undo(k, values)
        return None


def _imputer(step: Any) -> Imputer:
    if type(step).__name__ != "IterativeImputer":
        raise NotEncodable(f"numbers filled by {type(step).__name__}")
    try:
        return Imputer.of(step)
    except NotAsArrays as error:
        raise NotEncodable(str(error)) from error


def _filled(numbers: Floats, columns: Codes, filler: Imputer) -> Floats:
    """The rows with their missing numbers filled in; complete rows stay the same, as in scikit-learn."""
    given = numbers[:, columns]
    lacking = np.isnan(given).any(axis=1)
    if not lacking.any():
        return numbers
    filled = numbers.copy()
    filled[np.ix_(lacking, columns)] = filler.transform(given[lacking])
    return filled


def _scaling(step: Any, columns: list[str], start: int) -> ScaledStep:
    count = len(columns)
    if type(step).__name__ == "MinMaxScaler":
        if step.clip:
            raise NotEncodable("MinMaxScaler(clip=True)")
        return ScaledStep(columns, start, step.min_.tolist(), step.scale_.tolist(), minmax=True)
    shift = step.mean_ if step.with_mean else np.zeros(count)
    scale = step.scale_ if step.with_std else np.ones(count)
    return ScaledStep(columns, start, shift.tolist(), scale.tolist(), minmax=False)


def _placed(step: ScaledStep, source: list[int]) -> _Scaled:
    count = len(source)
    contiguous = source == list(range(source[0], source[0] + count))
    picked = slice(source[0], source[0] + count) if contiguous else np.array(source)
    place = slice(step.start, step.start + count)
    return _Scaled(picked, place, np.array(step.shift), np.array(step.scale), step.minmax)


def _is_plain(step: Any) -> bool:
    """Whether each known value has its column, and an unknown one has none."""
    grouped = step.min_frequency is not None or step.max_categories is not None
    return step.handle_unknown == "ignore" and step.drop is None and not grouped
