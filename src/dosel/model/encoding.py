"""A fitted preprocessing without DataFrames: it gives the same numbers as scikit-learn's.

Numbers are scaled in float64, by the same operations as in scikit-learn, so that no bit differs. (A whole pipeline
converted to ONNX scales in float32: rows next to a tree's threshold would take the other branch.)
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dosel.rows.columns import Codes, Floats
from dosel.usecases import UseCase


class NotEncodable(Exception):
    """The encoder does not support a step; the message names the step."""


@dataclass(frozen=True)
class _Scaled:
    """Numbers `source` end at `place`, as (x - shift) / scale, or as x * scale + shift if `minmax`."""

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


class Encoder:
    """Encodes rows as a fitted `ColumnTransformer` does.

    Rows come as the `numbers` and `codes` of `dosel.rows.columns`.

    Raises:
        NotEncodable: a step is not IterativeImputer, StandardScaler, MinMaxScaler or OneHotEncoder as
            `dosel.training.preprocessing` has them.
    """

    def __init__(self, use_case: UseCase, fitted: Any) -> None:
        self._scaled: list[_Scaled] = []
        self._places: list[tuple[int, Codes]] = []
        self._fillers: list[tuple[Codes, Any]] = []
        self._numbers = [number.name for number in use_case.numbers]
        self._categories = {category.name: (i, category) for i, category in enumerate(use_case.categories)}
        self.width = 0
        if type(fitted).__name__ != "ColumnTransformer":
            raise NotEncodable(f"preprocessing by {type(fitted).__name__}")
        self._take(fitted, use_case.feature_names, slice(0, 0))
        filled = {int(column) for columns, _ in self._fillers for column in columns}
        self.fills = bool(self._numbers) and len(filled) == len(self._numbers)
        """Whether any number may be missing (NaN)."""

    def _take(self, step: Any, columns: Sequence[str], place: slice) -> None:
        """Read a fitted step whose input is `columns` and whose output begins at `place.start`."""
        self.width = max(self.width, place.stop)
        match type(step).__name__:
            case "ColumnTransformer":
                for name, inner, picked in step.transformers_:
                    names = [columns[column] if isinstance(column, int) else column for column in picked]
                    within = step.output_indices_[name]
                    if names and inner != "drop":
                        self._take(inner, names, slice(place.start + within.start, place.start + within.stop))
            case "Pipeline" if len(step) == 2 and set(columns) <= set(self._numbers):
                self._fillers.append((np.array([self._numbers.index(c) for c in columns]), _filler(step[0])))
                self._take(step[1], columns, place)
            case "StandardScaler" | "MinMaxScaler" if set(columns) <= set(self._numbers):
                self._scaled.append(_scaling(step, [self._numbers.index(column) for column in columns], place))
            case "OneHotEncoder" if set(columns) <= set(self._categories) and _is_plain(step):
                start = place.start
                for column, known in zip(columns, step.categories_, strict=True):
                    i, category = self._categories[column]
                    found = {value: start + k for k, value in enumerate(known)}
                    # One more at the end: the place of code -1.
                    self._places.append((i, np.array([*(found.get(v, -1) for v in category.values), -1])))
                    start += len(known)
            case other:
                raise NotEncodable(f"{other} of {', '.join(map(str, columns))}")

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


def _filler(step: Any) -> Any:
    """A fitted imputer that takes plain arrays."""
    if type(step).__name__ != "IterativeImputer" or step.add_indicator:
        raise NotEncodable(f"numbers filled by {type(step).__name__}")
    bare = copy(step)
    # With names it would warn, for each row, that arrays have none.
    vars(bare).pop("feature_names_in_", None)
    return bare


def _filled(numbers: Floats, columns: Codes, filler: Any) -> Floats:
    """The rows with their missing numbers filled in; complete rows stay the same, as in scikit-learn."""
    given = numbers[:, columns]
    lacking = np.isnan(given).any(axis=1)
    if not lacking.any():
        return numbers
    filled = numbers.copy()
    filled[np.ix_(lacking, columns)] = filler.transform(given[lacking])
    return filled


def _scaling(step: Any, source: list[int], place: slice) -> _Scaled:
    count = len(source)
    contiguous = source == list(range(source[0], source[0] + count))
    picked = slice(source[0], source[0] + count) if contiguous else np.array(source)
    if type(step).__name__ == "MinMaxScaler":
        if step.clip:
            raise NotEncodable("MinMaxScaler(clip=True)")
        return _Scaled(picked, place, step.min_, step.scale_, minmax=True)
    shift = step.mean_ if step.with_mean else np.zeros(count)
    scale = step.scale_ if step.with_std else np.ones(count)
    return _Scaled(picked, place, shift, scale, minmax=False)


def _is_plain(step: Any) -> bool:
    """Whether each known value has its column, and an unknown one has none."""
    grouped = step.min_frequency is not None or step.max_categories is not None
    return step.handle_unknown == "ignore" and step.drop is None and not grouped
