"""Rows as DataFrames in canonical types, the form that training and checks work on."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

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
