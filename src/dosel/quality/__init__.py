"""Which rows of a batch are acceptable: their features by the validator of `dosel.rows`, and their class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dosel.rows import frames
from dosel.rows.text import as_text
from dosel.rows.validation import CheckedRows, InvalidValue, Validator, judge_spellings
from dosel.usecases import UseCase


@dataclass(frozen=True)
class Checked:
    """The result of checking a batch. Both sides are keyed by the row's position in the batch.

    `accepted` holds features (float64 and text) and the target (int64); `refused` the reasons in words.
    """

    accepted: pd.DataFrame
    refused: dict[int, str]


def check(use_case: UseCase, received: Sequence[Sequence[Any]], coding: str, text: pa.Table | None = None) -> Checked:
    """Validate the rows of a batch.

    Args:
        received: rows as the source sent them, columns in declared order, the target last.
        coding: how the source numbers the classes, a name in the target's `codings`.
        text: the rows as `as_text` gives them, if the caller has them already.
    """
    text = as_text(received, use_case.columns) if text is None else text
    checked, target, width = Validator(use_case).check(text, text.num_rows), use_case.target, len(use_case.columns)
    classes, unknown = judge_spellings(
        text[target.name], lambda spelled: None if spelled is None else target.code(spelled, coding), 0, np.int64
    )
    place_of = {name: place for place, name in enumerate(use_case.columns)}
    misfits = {
        i: [InvalidValue(None, f"{width} values", str(len(row)))] for i, row in enumerate(received) if len(row) != width
    }
    whole = np.ones(len(received), np.bool_)
    whole[list(misfits)] = False
    refused = [(column, bad & whole) for column, bad in (*checked.refused, (target, unknown))]
    errors = CheckedRows(checked.columns, refused).errors(lambda i, name: received[i][place_of[name]]) | misfits
    good = np.ones(len(received), np.bool_)
    good[list(errors)] = False
    kept = np.flatnonzero(good)
    columns = checked.columns[kept] if errors else checked.columns
    accepted = frames.of_columns(use_case, columns).set_axis(kept)
    accepted[target.name] = classes[kept]
    return Checked(accepted, {i: "; ".join(error.message for error in errors[i]) for i in sorted(errors)})
