"""The rows of a training: in memory, or in partitions (`dosel.training.partitioned`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.data.pandas_dataset import PandasDataset

from dosel.closed import BLOCK
from dosel.errors import TrainingError
from dosel.model import held_out, reference
from dosel.rows import frames, hashing
from dosel.sources.lake import Lake
from dosel.training import search_log, stored_rows, tracking
from dosel.training.evaluation import Evaluation, confusion_counts, evaluate
from dosel.training.fan_out import Engine
from dosel.training.search import AnySearch, search_of
from dosel.usecases import Family, UseCase

Counts = npt.NDArray[np.int64]


class Rows(Protocol):
    """Training rows and held-out rows, and what a training does with them."""

    @property
    def rows_train(self) -> int: ...

    @property
    def rows_held_out(self) -> int: ...

    def dataset(self) -> PandasDataset:
        """The training rows, as MLflow describes them."""

    def search(self, family: Family, seed: int, engine: Engine, storage: str, study: str) -> AnySearch:
        """An unfitted search of a family; the arguments are those of `search_of`."""

    def fit(self, search: AnySearch) -> None:
        """Fit a search to the training rows."""

    def on_training_rows(self, search: AnySearch) -> tuple[Counts, dict[str, float]]:
        """The best model's confusion matrix on the training rows, and its metrics as autologging names them."""

    def on_held_out_rows(self, model: Any) -> Evaluation:
        """The evaluation of a model on the held-out rows."""

    @property
    def kept(self) -> Sequence[str]:
        """The keys of the training rows in the lake's bucket `training-rows`; none if `write` writes all of them."""

    def write(self, model: Any, folder: Path) -> list[Path]:
        """Write training rows for explanations, and answers on held-out rows, to files in `folder`."""


class Data(Protocol):
    """All clean rows, not yet split."""

    @property
    def digest(self) -> str: ...

    @property
    def batch_ids(self) -> tuple[int, ...]: ...

    def prepared(self, use_case: UseCase) -> Rows:
        """Split the rows.

        Raises:
            TrainingError: the rows cannot give a meaningful model.
        """


@dataclass(frozen=True)
class RowsInMemory:
    """Canonical features, and class codes of shape (rows,)."""

    use_case: UseCase
    data_digest: str
    features: pd.DataFrame
    classes: Any
    held_out_features: pd.DataFrame
    held_out_classes: Any
    lake: Lake | None = None

    @property
    def rows_train(self) -> int:
        return len(self.classes)

    @property
    def rows_held_out(self) -> int:
        return len(self.held_out_classes)

    @classmethod
    def of(cls, use_case: UseCase, table: pd.DataFrame, data_digest: str, lake: Lake | None = None) -> "RowsInMemory":
        """Split clean rows.

        Raises:
            TrainingError: they cannot give a meaningful model.
        """
        is_held_out = hashing.is_held_out(use_case, table)
        measured = np.flatnonzero(is_held_out)
        if not use_case.expose_training_rows:
            # One more row must not change a figure; with fewer rows than a block, all of them are measured.
            measured = measured[: len(measured) // BLOCK * BLOCK or len(measured)]
        features = frames.canonical(use_case, table)
        classes = table[use_case.target.name].to_numpy(dtype=np.int64)
        parts = features[~is_held_out], classes[~is_held_out], features.iloc[measured], classes[measured]
        made = cls(use_case, data_digest, *parts, lake)
        made._check()
        return made

    def dataset(self) -> PandasDataset:
        return tracking.dataset_of(self.use_case, self.features, self.classes, self.data_digest)

    def search(self, family: Family, seed: int, engine: Engine, storage: str, study: str) -> AnySearch:
        return search_of(self.use_case, family, seed, engine, storage, study)

    def fit(self, search: AnySearch) -> None:
        search.fit(self.features, self.classes)

    def on_training_rows(self, search: AnySearch) -> tuple[Counts, dict[str, float]]:
        predicted, figures = search_log.training_metrics(search, self.features, self.classes)
        return confusion_counts(self.use_case.target, self.classes, predicted), figures

    def on_held_out_rows(self, model: Any) -> Evaluation:
        return evaluate(self.use_case.target, self.held_out_classes, model.predict(self.held_out_features))

    @cached_property
    def kept(self) -> Sequence[str]:
        if self.rows_train <= reference.MOST_ROWS or self.lake is None:
            return ()
        return (stored_rows.store(self.lake, self.use_case.name, self.features, self.classes).key,)

    def write(self, model: Any, folder: Path) -> list[Path]:
        return [
            reference.write(self.use_case, self.features, self.classes, folder),
            held_out.write(model, self.held_out_features, self.held_out_classes, folder),
        ]

    def _check(self) -> None:
        """Refuse rows that cannot give a meaningful model, before anything is logged."""
        use_case, counts = self.use_case, np.unique_counts(self.classes)
        check_counts(use_case, counts.counts, self.rows_held_out)
        if empty := [name for name in use_case.feature_names if self.features[name].isna().all()]:
            raise TrainingError(f"{use_case.name}: all training rows lack a value of {', '.join(empty)}")


def check_counts(use_case: UseCase, counts: Counts, rows_held_out: int) -> None:
    """Refuse too few rows. `counts` are those of the classes that occur among the training rows.

    Raises:
        TrainingError: they cannot give a meaningful model.
    """
    if rows_held_out == 0 or len(counts) < 2 or counts.max() < use_case.folds:
        raise TrainingError(
            f"{use_case.name}: too few rows: {counts.sum()} of {len(counts)} classes to train on and "
            f"{rows_held_out} held out; ingest more batches first"
        )
