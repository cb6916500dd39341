"""Rows of a search in the lake: one Parquet file named by its own digest, for the workers of a cluster."""

import hashlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dosel.errors import SourceError
from dosel.settings import Settings
from dosel.sources.lake import TRAINING_ROWS, Lake, open_lake

CLASSES = "_classes"
"""The column of the class codes; no declared column begins with an underscore."""


@dataclass(frozen=True)
class StoredRows:
    """A reference to stored rows: their key in the bucket, and the SHA-256 of the file."""

    key: str
    sha256: str

    def load(self, settings: Settings) -> tuple[pd.DataFrame, Any]:
        """The features as they were stored, and the class codes of shape (rows,).

        Args:
            settings: of the process that loads, which may reach the lake by another address or key.

        Raises:
            SourceError: the lake has no such file, or one with other content.
        """
        lake = open_lake(settings)
        content = lake.get(TRAINING_ROWS, self.key)
        address = lake.address(TRAINING_ROWS, self.key)
        if content is None:
            raise SourceError(f"{address} does not exist; does this process use the lake of the training?")
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise SourceError(f"{address} was changed: its SHA-256 is not {self.sha256}; remove it and train again")
        table = pd.read_parquet(io.BytesIO(content))
        features = table.drop(columns=CLASSES)
        # Text is read back as pandas' own text type; training expects object.
        features = features.astype({name: "object" for name in features if features[name].dtype != np.float64})
        return features, table[CLASSES].to_numpy()


def store(lake: Lake, name: str, features: pd.DataFrame, classes: Any) -> StoredRows:
    """Write rows to the lake, unless it has them; rows and their order decide the file's name.

    Args:
        name: of the use case.
        features: in canonical types, float64 and object.
    """
    content = io.BytesIO()
    features.assign(**{CLASSES: classes}).to_parquet(content, index=False, compression="zstd")
    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    rows = StoredRows(f"{name}/{sha256}.parquet", sha256)
    if not lake.holds(TRAINING_ROWS, rows.key):
        lake.put(TRAINING_ROWS, rows.key, content.getvalue())
    return rows
