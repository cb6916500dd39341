"""A version's probabilities on held-out rows and the rows' classes, as a Parquet file beside the model.

The estimate without labels (`dosel.monitor.estimate`) is calibrated on it. The file has no features. The version's
manifest covers it like the others; a version that an older dosel trained has none.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dosel.model.bundle import HELD_OUT_FILE
from dosel.rows.columns import Floats

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 5_000
"""Most rows in the file; a sample of more held-out rows. More would hardly change an estimate."""

TRUTH = "truth"


@dataclass(frozen=True)
class HeldOut:
    """Answers on held-out rows.

    Attributes:
        codes: the model's classes, of shape (classes,).
        probabilities: of shape (rows, classes).
        truth: each row's class code, of shape (rows,).
    """

    codes: npt.NDArray[np.int64]
    probabilities: Floats
    truth: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.truth)

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Read what `write` wrote."""
        table = pq.read_table(BytesIO(content))
        names = [name for name in table.column_names if name != TRUTH]
        probabilities = np.column_stack([table[name].to_numpy().astype(np.float64) for name in names])
        return cls(np.array(names, np.int64), probabilities, table[TRUTH].to_numpy().astype(np.int64))


def write(model: Any, features: "pd.DataFrame", classes: npt.NDArray[np.int64], folder: Path) -> Path:
    """Write a fitted model's answers on held-out rows, or on a sample of them, to a file in `folder`; return the file.

    Args:
        features: canonical rows; `classes` are their class codes, of shape (rows,).
    """
    if len(features) > MOST_ROWS:
        drawn = np.sort(np.random.default_rng(0).choice(len(features), MOST_ROWS, replace=False))
        features, classes = features.iloc[drawn], classes[drawn]
    answers = np.asarray(model.predict_proba(features), np.float32)
    columns = {str(int(code)): column for code, column in zip(model.classes_, answers.T, strict=True)}
    file = folder / HELD_OUT_FILE
    pq.write_table(pa.table(columns | {TRUTH: classes}), file, compression="zstd")
    return file
