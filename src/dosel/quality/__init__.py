"""What makes a row acceptable, decided from the use case's declaration alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dosel.rows import canonical
from dosel.usecases import UseCase

__all__ = ["Checked", "check"]


@dataclass(frozen=True)
class Checked:
    """The verdict on a batch. Both sides are keyed by the row's position in the batch.

    `accepted` holds features (float64 and text) and the target (int64); `refused` the reasons in words.
    """

    accepted: pd.DataFrame
    refused: dict[int, str]


def check(use_case: UseCase, received: Sequence[Sequence[Any]], coding: str) -> Checked:
    """Decides row by row.

    Args:
        received: rows as the source sent them, columns in declared order, the target last.
        coding: how the source numbers the classes, a name in the target's `codings`.
    """
    width = len(use_case.columns)
    reasons: dict[int, list[str]] = {
        i: [f"{width} values expected, got {len(row)}"] for i, row in enumerate(received) if len(row) != width
    }
    whole = [i for i, row in enumerate(received) if len(row) == width]
    text = pd.DataFrame([received[i] for i in whole], index=whole, columns=list(use_case.columns), dtype="object")

    def refuse(name: str, bad: npt.NDArray[np.bool_], expected: str) -> None:
        for i in text.index[bad]:
            reasons.setdefault(i, []).append(f"{name}: {expected} expected, got {text.at[i, name]!r}")

    data = pd.DataFrame(index=text.index)
    for number in use_case.numbers:
        values = _to_number(text[number.name])
        bad = ~((values >= number.low) & (values <= number.high))
        if number.whole:
            bad |= values != np.floor(values)
        refuse(number.name, bad, number.expected)
        data[number.name] = values
    for category in use_case.categories:
        words = text[category.name].astype("str").str.strip().str.casefold().map(dict(category.spellings))
        refuse(category.name, words.isna().to_numpy(), category.expected)
        data[category.name] = words
    target = use_case.target
    codes = _to_number(text[target.name]) + target.codings.get(coding, 0)
    refuse(target.name, ~np.isin(codes, list(target.labels)), f"a class, {target.expected},")
    data[target.name] = codes

    kept = data.drop(index=[i for i in reasons if i in data.index])
    accepted = canonical(use_case, kept)
    accepted[target.name] = kept[target.name].astype("int64")
    return Checked(accepted, {i: "; ".join(found) for i, found in sorted(reasons.items())})


def _to_number(column: pd.Series) -> npt.NDArray[np.float64]:
    """The values as float64; what is no number, infinities included, as NaN."""
    # By way of text, as which true is no number and no integer is too long.
    values = pd.to_numeric(column.astype("str"), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)
