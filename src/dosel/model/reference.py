"""A model's training rows, which explanations of its answers need, as a Parquet file beside the model.

Reading Parquet runs no code from the file. The version's manifest covers this file like the others.
"""

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dosel.errors import NotExplainable
from dosel.model.bundle import REFERENCE_FILE
from dosel.rows.columns import Columns, codes_of
from dosel.usecases import Number, UseCase

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 500_000
"""Most rows in the file; a sample of more training rows. More would make a person wait for an explanation."""


@dataclass(frozen=True)
class Reference:
    """Training rows: the declared features, and each row's class code."""

    use_case: UseCase
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def classes(self) -> npt.NDArray[np.int64]:
        """Shape (rows,)."""
        found: npt.NDArray[np.int64] = self.table[self.use_case.target.name].to_numpy().astype(np.int64)
        return found

    def matrix(self, places: Any) -> npt.NDArray[np.float64]:
        """The rows at these places, as `Predictor.matrix` gives rows: shape (rows, features)."""
        taken = self.table.take(pa.array(places))
        return Columns.of(self.use_case, taken).matrix(self.use_case)

    def shown(self, places: Any) -> list[dict[str, Any]]:
        """The rows at these places with their declared values; None where a value is missing."""
        listed: list[dict[str, Any]] = (
            self.table.take(pa.array(places)).select(list(self.use_case.feature_names)).to_pylist()
        )
        return listed


def write(use_case: UseCase, features: "pd.DataFrame", classes: npt.NDArray[np.int64], folder: Path) -> Path:
    """Write canonical rows and their classes to a file in `folder`, and return the file."""
    if len(features) > MOST_ROWS:
        drawn = np.sort(np.random.default_rng(0).choice(len(features), MOST_ROWS, replace=False))
        features, classes = features.iloc[drawn], classes[drawn]
    file = folder / REFERENCE_FILE
    pq.write_table(typed(use_case, features, classes), file, compression="zstd")
    return file


def typed(use_case: UseCase, features: "pd.DataFrame", classes: npt.NDArray[np.int64]) -> pa.Table:
    """Canonical rows and their classes in Arrow's smallest common types: integers, floats and dictionaries of words."""
    columns: dict[str, pa.Array] = {}
    for feature in use_case.features:
        values = features[feature.name]
        if isinstance(feature, Number):
            made = pa.array(values.to_numpy(dtype=np.float64), from_pandas=True)
            columns[feature.name] = made.cast(pa.int64()) if feature.integer else made
        else:
            codes = codes_of(feature, values)
            columns[feature.name] = pa.DictionaryArray.from_arrays(
                pa.array(codes, pa.int32(), mask=codes < 0), list(feature.values)
            )
    return pa.table(columns | {use_case.target.name: pa.array(classes, pa.int64())})


def read(use_case: UseCase, content: bytes) -> Reference:
    """Read the file.

    Raises:
        NotExplainable: its columns are not those that are declared now.
    """
    schema = pq.read_schema(BytesIO(content))
    if set(schema.names) != set(use_case.columns):
        other = ", ".join(sorted(set(schema.names) ^ set(use_case.columns)))
        raise NotExplainable(
            f"its training rows were stored with another declaration of {use_case.name}: {other} differ; train again"
        )
    categories = [category.name for category in use_case.categories]
    return Reference(use_case, pq.read_table(BytesIO(content), read_dictionary=categories))
