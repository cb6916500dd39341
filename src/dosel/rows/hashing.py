"""Hashes of rows: the row key, which finds duplicates, and the split into training rows and holdout.

The hash is defined here, since a library that changed its hash would move rows between training and holdout. It folds
the splitmix64 finaliser (Steele, Lea and Flood 2014) over the columns, vectorised.
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dosel.rows.columns import Columns
from dosel.usecases import Number, UseCase

if TYPE_CHECKING:
    # The prediction log hashes rows without it, in processes that are to start fast.
    import pandas as pd

Hashes = npt.NDArray[np.uint64]


def hashes(data: "pd.DataFrame", columns: Iterable[str], salt: str) -> Hashes:
    """A 64-bit hash of each row over the given columns, in that order; 2544 and 2544.0 are the same value.

    Args:
        data: float64, integer or text columns.
        salt: a different salt gives independent hashes.
    """
    state = np.full(len(data), _text_hash(salt), dtype=np.uint64)
    for name in columns:
        state = _mix(state ^ _column_bits(data[name]))
    return state


def row_keys(use_case: UseCase, data: "pd.DataFrame") -> npt.NDArray[np.int64]:
    """The row keys: rows with equal features and target have equal keys. Signed, as databases store them.

    Two different rows among 581,012 share a key with a probability of 1e-8.
    """
    return hashes(data, use_case.columns, "row key").view(np.int64)


def feature_keys(use_case: UseCase, columns: Columns) -> npt.NDArray[np.int64]:
    """Keys of rows by their features alone, of shape (rows,): equal for rows with equal features."""
    numbers, codes = iter(columns.numbers.T), iter(columns.codes.T)
    state = np.full(len(columns), _text_hash("features"), dtype=np.uint64)
    for feature in use_case.features:
        if isinstance(feature, Number):
            bits = _number_bits(next(numbers))
        else:
            # The last one is that of a missing value, whose code is -1.
            bits = np.array([_text_hash(value) for value in (*feature.values, "")], dtype=np.uint64)[next(codes)]
        state = _mix(state ^ bits)
    return state.view(np.int64)


def digest(keys: npt.NDArray[np.int64]) -> str:
    """SHA-256 of a set of row keys, in any order; 64 hexadecimal digits."""
    return hashlib.sha256(np.sort(keys).astype("<i8", copy=False).data).hexdigest()


def is_held_out(use_case: UseCase, data: "pd.DataFrame") -> npt.NDArray[np.bool_]:
    """A mask of the held-out rows. A row's features decide, not its class, batch or id."""
    drawn = hashes(data, use_case.feature_names, use_case.split.salt)
    return drawn < np.uint64(use_case.split.test_share * 2**64)


def folds(use_case: UseCase, data: "pd.DataFrame", count: int) -> npt.NDArray[np.int64]:
    """The fold of each row, from 0, of shape (rows,): by its features alone, so that no partition needs another."""
    drawn = hashes(data, use_case.feature_names, f"{use_case.split.salt} folds")
    return (drawn % np.uint64(count)).astype(np.int64)


def _column_bits(column: "pd.Series") -> Hashes:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return _number_bits(column.to_numpy(dtype=np.float64))
    codes, words = pd.factorize(column.where(column.notna(), ""))
    return np.array([_text_hash(str(word)) for word in words], dtype=np.uint64)[codes]


def _number_bits(values: npt.NDArray[np.float64]) -> Hashes:
    # Adding zero turns -0.0 into 0.0: they are equal and have different bits. NaN, too, has several bit patterns.
    values = values + 0.0
    return np.where(np.isnan(values), np.nan, values).view(np.uint64)


@lru_cache(maxsize=4096)
def _text_hash(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def _mix(x: Hashes) -> Hashes:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
