"""What makes a row acceptable, decided from the use case's declaration alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from dosel.rows.text import as_text
from dosel.usecases import Category, Number, UseCase, as_number

__all__ = ["Checked", "check"]

MAX_SHOWN = 80
"""Characters of an unacceptable value that its reason quotes."""


@dataclass(frozen=True)
class Checked:
    """The verdict on a batch. Both sides are keyed by the row's position in the batch.

    `accepted` holds features (float64 and text) and the target (int64); `refused` the reasons in words.
    """

    accepted: pd.DataFrame
    refused: dict[int, str]


def check(use_case: UseCase, received: Sequence[Sequence[Any]], coding: str, text: pa.Table | None = None) -> Checked:
    """Decides row by row; each spelling is judged once, however many rows have it.

    Args:
        received: rows as the source sent them, columns in declared order, the target last.
        coding: how the source numbers the classes, a name in the target's `codings`.
        text: the rows as `as_text` gives them, if the caller has them already.
    """
    text = as_text(received, use_case.columns) if text is None else text
    width = len(use_case.columns)
    reasons: dict[int, list[str]] = {
        i: [f"{width} values expected, got {len(row)}"] for i, row in enumerate(received) if len(row) != width
    }
    whole = np.ones(len(received), dtype=bool)
    whole[list(reasons)] = False
    good = whole.copy()

    def refuse(name: str, bad: npt.NDArray[np.bool_], expected: str) -> None:
        np.logical_and(good, ~bad, out=good)
        position = use_case.columns.index(name)
        for i in np.flatnonzero(bad & whole).tolist():
            reasons.setdefault(i, []).append(f"{name}: {expected} expected, got {_quoted(received[i][position])}")

    tokens = {token.casefold() for token in use_case.missing}

    def missing(name: str) -> npt.NDArray[np.bool_]:
        return _each(text[name], lambda spelled: spelled.strip().casefold() in tokens, True, np.bool_)

    data: dict[str, npt.NDArray[Any]] = {}
    for feature in use_case.features:
        match feature:
            case Number():
                values = _each(text[feature.name], as_number, np.nan, np.float64)
                bad = ~((values >= feature.minimum) & (values <= feature.maximum))
                if feature.integer:
                    bad |= values != np.floor(values)
            case Category():
                values = _each(text[feature.name], feature.canonical, None, np.object_)
                bad = values == np.array(None)
        if feature.optional:
            gone = missing(feature.name)
            values[gone] = None
            bad &= ~gone
        refuse(feature.name, bad, feature.describe_expected())
        data[feature.name] = values
    target = use_case.target
    codes = _each(text[target.name], lambda spelled: target.code(spelled, coding), None, np.object_)
    refuse(target.name, codes == np.array(None), f"a class, {target.describe_expected()},")

    kept = np.flatnonzero(good)
    # As Series, so that words stay objects, which they share: pandas would make text of its own of an array.
    accepted = pd.DataFrame({name: pd.Series(v[kept], kept, v.dtype) for name, v in data.items()}, index=kept)
    accepted[target.name] = codes[kept].astype("int64")
    return Checked(accepted, {i: "; ".join(found) for i, found in sorted(reasons.items())})


def _each(column: pa.ChunkedArray, judge: Callable[[str], Any], absent: Any, dtype: Any) -> npt.NDArray[Any]:
    """What `judge` makes of each value of a text column; `absent` for a null."""
    spelled = column.combine_chunks().dictionary_encode()
    meanings = np.array([*map(judge, spelled.dictionary.to_pylist()), absent], dtype=dtype)
    positions: npt.NDArray[np.int32] = spelled.indices.fill_null(len(meanings) - 1).to_numpy()
    return meanings[positions]


def _quoted(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}…"
