"""Rows as DataFrames in canonical types, the form that training and scikit-learn work on."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from dosel.rows.columns import Columns
from dosel.usecases import UseCase


def frame(use_case: UseCase, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows given as mappings, as a DataFrame of the features in declared order: float64 and object."""
    return canonical(use_case, pd.DataFrame.from_records(list(rows), columns=list(use_case.feature_names)))


def canonical(use_case: UseCase, data: pd.DataFrame) -> pd.DataFrame:
    """The features of `data`, in declared order and canonical types; other columns are left out.

    What is missing is NaN among numbers and "", which is no declared value, among categories.
    """
    types: dict[str, Any] = {n.name: "float64" for n in use_case.numbers}
    types |= {c.name: "object" for c in use_case.categories}
    made = data[list(use_case.feature_names)].astype(types)
    for category in use_case.categories:
        if category.optional:
            made[category.name] = made[category.name].where(made[category.name].notna(), "")
    return made


def of_columns(use_case: UseCase, columns: Columns, missing: str | None = None) -> pd.DataFrame:
    """Columnar rows as a DataFrame of the features in declared order: float64 and object.

    Args:
        missing: stands where a category's value is missing or unknown.
    """
    made: dict[str, Any] = {n.name: columns.numbers[:, i] for i, n in enumerate(use_case.numbers)}
    for i, category in enumerate(use_case.categories):
        # A Series, so that its words stay objects, which rows share: pandas would make text of its own of an array.
        values = np.array([*category.values, missing], dtype=object)[columns.codes[:, i]]
        made[category.name] = pd.Series(values, dtype="object")
    return pd.DataFrame({name: made[name] for name in use_case.feature_names}, index=range(len(columns)))
