"""Clean rows as Parquet partitions in the lake, one for each batch, for trainings on rows beyond memory.

A partition is named by the digest of its rows' keys, so that it is written once, and read by every later training.
"""

import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from dosel.errors import SourceError
from dosel.model import reference
from dosel.rows import frames, hashing
from dosel.sources.lake import TRAINING_ROWS, Lake
from dosel.usecases import UseCase
from dosel.warehouse.batches import BatchStore

HELD_OUT = -1
"""The place of a held-out row; a training row's place is its fold."""

Classes = npt.NDArray[np.int64]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """Rows of one partition: canonical features, class codes and places (`HELD_OUT` or the fold), of shape (rows,)."""

    features: pd.DataFrame
    classes: Classes
    places: Classes

    def at(self, chosen: npt.NDArray[np.bool_]) -> tuple[pd.DataFrame, Classes]:
        """The features and classes of the chosen rows."""
        return self.features[chosen], self.classes[chosen]


@dataclass(frozen=True)
class Partitions:
    """References to stored partitions, in the order of their batches.

    Attributes:
        keys: of objects in the lake's bucket `training-rows`.
        digest: of all rows, as `dosel.rows.hashing.digest` gives it.
    """

    keys: tuple[str, ...]
    digest: str
    batch_ids: tuple[int, ...]

    def read(self, use_case: UseCase, lake: Lake, keys: Sequence[str] | None = None) -> Iterator[Part]:
        """Read partitions one after the other: all, or those named.

        Raises:
            SourceError: the lake cannot be reached, or lacks a partition.
        """
        for key in self.keys if keys is None else keys:
            content = lake.get(TRAINING_ROWS, key)
            if content is None:
                address = lake.address(TRAINING_ROWS, key)
                raise SourceError(f"{address} does not exist; train again, which writes it again")
            table = pq.read_table(io.BytesIO(content)).to_pandas()
            features = frames.canonical(use_case, table)
            places = hashing.folds(use_case, features, use_case.folds)
            places[hashing.is_held_out(use_case, features)] = HELD_OUT
            yield Part(features, table[use_case.target.name].to_numpy(dtype=np.int64), places)


def store(use_case: UseCase, batches: BatchStore, lake: Lake) -> Partitions:
    """Write the batches that the lake lacks, one at a time."""
    keys = batches.keys()
    names = {}
    for batch_id, of_batch in keys.items():
        names[batch_id] = name = f"{use_case.name}/partitions/{hashing.digest(of_batch)}.parquet"
        if not lake.holds(TRAINING_ROWS, name):
            lake.put(TRAINING_ROWS, name, _content(use_case, batches.clean(batch_id)))
            log.info("batch %d is at %s", batch_id, lake.address(TRAINING_ROWS, name))
    together = np.concatenate([np.zeros(0, np.int64), *keys.values()])
    return Partitions(tuple(names.values()), hashing.digest(together), tuple(names))


def _content(use_case: UseCase, rows: pd.DataFrame) -> bytes:
    features = frames.canonical(use_case, rows)
    content = io.BytesIO()
    table = reference.typed(use_case, features, rows[use_case.target.name].to_numpy(dtype=np.int64))
    pq.write_table(table, content, compression="zstd")
    return content.getvalue()


@dataclass(frozen=True)
class Survey:
    """What one pass over all partitions finds.

    Attributes:
        counts: rows by partition, place and class, of shape (partitions, folds + 1, classes); `HELD_OUT` is last.
        preprocessing: the use case's preprocessing, fitted to the training rows.
        lacking: features without a value in any training row.
    """

    counts: npt.NDArray[np.int64]
    preprocessing: Any
    lacking: tuple[str, ...]

    @property
    def rows_train(self) -> int:
        return int(self.counts[:, :HELD_OUT].sum())

    @property
    def rows_held_out(self) -> int:
        return int(self.counts[:, HELD_OUT].sum())


def survey(use_case: UseCase, preprocessing: Any, parts: Iterator[Part]) -> Survey:
    """Count the rows, and fit the scalers to the training rows.

    Folds share the scalers: no split of a tree depends on the scale of a number.

    Args:
        preprocessing: the unfitted steps before the classifier.
    """
    codes = np.array(sorted(use_case.target.labels))
    counts, present = [], np.zeros(len(use_case.feature_names), np.bool_)
    for part in parts:
        places = np.searchsorted(codes, part.classes) + len(codes) * (part.places % (use_case.folds + 1))
        size = (use_case.folds + 1) * len(codes)
        counts.append(np.bincount(places, minlength=size).reshape(-1, len(codes)))
        features, _ = part.at(part.places != HELD_OUT)
        if len(features):
            _fit_more(preprocessing[0], features)
            present |= (features.notna() & (features != "")).any().to_numpy()
    lacking = tuple(name for name, has in zip(use_case.feature_names, present, strict=True) if not has)
    shape = (len(counts), use_case.folds + 1, len(codes))
    return Survey(np.array(counts, np.int64).reshape(shape), preprocessing, lacking)


def _fit_more(columns: Any, features: pd.DataFrame) -> None:
    """Fit a ColumnTransformer, or go on fitting its scalers; the encoder's categories are declared."""
    if not hasattr(columns, "transformers_"):
        columns.fit(features)
        return
    for _, step, names in columns.transformers_:
        if hasattr(step, "partial_fit") and len(names):
            step.partial_fit(features[names])


def sample(parts: Iterator[Part], is_held_out: bool, rows: int, most: int) -> tuple[pd.DataFrame, Classes]:
    """At most `most` of the `rows` training or held-out rows, drawn at random."""
    drawn = np.arange(rows)
    if rows > most:
        drawn = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    chosen, seen = [], 0
    for part in parts:
        features, classes = part.at((part.places == HELD_OUT) == is_held_out)
        first, last = np.searchsorted(drawn, (seen, seen + len(classes)))
        here = drawn[first:last] - seen
        chosen.append((features.iloc[here], classes[here]))
        seen += len(classes)
    return (
        pd.concat([features for features, _ in chosen], ignore_index=True),
        np.concatenate([classes for _, classes in chosen]),
    )
