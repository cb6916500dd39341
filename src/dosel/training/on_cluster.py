"""Scores candidates on the workers of a Dask cluster: rows are loaded, folds are prepared, candidates are scored.

Rows travel through the lake. Through the scheduler pass only references, parameters and scores.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import joblib
import pandas as pd

from dosel.cluster.connection import Cluster
from dosel.cluster.preflight import Software, check_own, software
from dosel.settings import Settings
from dosel.sources.lake import open_lake
from dosel.training.candidates import Figures, Fold, prepare_fold, score_fold
from dosel.training.fan_out import Folds, SearchJob, Task
from dosel.training.stored_rows import StoredRows, store
from dosel.training.strategies import Params

if TYPE_CHECKING:
    from distributed import Client, Future

SIDE_BY_SIDE = 8
"""Most families that are searched at the same time; their tasks fill the workers while one of them fits its best."""


class OnCluster:
    """Runs tasks on a cluster.

    Args:
        name: of the use case, by which its rows are stored.
    """

    side_by_side = SIDE_BY_SIDE

    def __init__(self, cluster: Cluster, settings: Settings, name: str) -> None:
        self.jobs = settings.jobs
        self.cluster = cluster
        self._lake = open_lake(settings)
        self._name = name
        self._lock = threading.Lock()
        self._stored: tuple[Any, Any, StoredRows] | None = None

    def cores(self) -> int:
        """The number of tasks that the workers run at the same time."""
        return self.cluster.cores()

    @contextmanager
    def folds(self, job: SearchJob, X: pd.DataFrame, y: Any) -> Iterator[Folds]:
        """Store the rows, for workers to prepare the folds of them."""
        yield _OnWorkers(self.cluster, job, self._rows(X, y), len(job.splits(X, y)))

    def close(self) -> None:
        """Close the connection, so that no search gets another result."""
        self.cluster.close()

    def _rows(self, X: pd.DataFrame, y: Any) -> StoredRows:
        """The stored rows; the families of a training have the same."""
        with self._lock:
            if self._stored is None or self._stored[0] is not X or self._stored[1] is not y:
                self._stored = X, y, store(self._lake, self._name, X, y)
            return self._stored[2]


class _OnWorkers:
    """The folds of one search, on the workers."""

    def __init__(self, cluster: Cluster, job: SearchJob, rows: StoredRows, count: int) -> None:
        self.count = count
        self._cluster = cluster
        self._job = job
        self._rows = rows
        self._preparation = _digest(rows, job.preprocessing, type(job.plan), job.cv)
        self._search = _digest(self._preparation, job)
        self._folds: dict[int, Future[Fold]] = {}
        self._client: Client | None = None

    def score(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, list[Figures]]]:
        """Yield each task with its figures as soon as they are known, in any order."""
        # Two trials may have the same parameters.
        by_name = {f"score-{self._search}-{task.group}-{_digest(task.params)}-{task.fold}": task for task in tasks}

        def submit(client: "Client", name: str) -> "Future[list[Figures]]":
            task = by_name[name]
            fold = self._fold(client, task.fold)
            return client.submit(_score, software(), self._job, task.params, fold, key=name)

        def describe(name: str) -> str:
            task = by_name[name]
            return f"fitting {type(self._job.model).__name__} with {list(task.params)} on fold {task.fold + 1}"

        for name, figures in self._cluster.results(by_name, submit, describe):
            yield by_name[name], figures

    def _fold(self, client: "Client", number: int) -> "Future[Fold]":
        """A prepared fold, on whichever worker has prepared it; searches with equal preprocessing share it."""
        if client is not self._client:
            self._client, self._folds = client, {}
        if number not in self._folds:
            key = f"fold-{self._preparation}-{number}"
            rows = client.submit(_load, software(), self._rows, key=f"rows-{self._rows.sha256}")
            self._folds[number] = client.submit(_prepare, software(), self._job, rows, number, key=key)
        return self._folds[number]


def _load(expected: Software, rows: StoredRows) -> tuple[pd.DataFrame, Any]:
    check_own(expected)
    return rows.load(Settings.load())


def _prepare(expected: Software, job: SearchJob, rows: tuple[pd.DataFrame, Any], number: int) -> Fold:
    check_own(expected)
    return prepare_fold(job.preprocessing, job.plan, *rows, *job.splits(*rows)[number])


def _score(expected: Software, job: SearchJob, params: Sequence[Params], fold: Fold) -> list[Figures]:
    check_own(expected)
    return score_fold(job.plan, job.model, params, fold, job.scorer)


def _digest(*parts: Any) -> str:
    return str(joblib.hash(parts))
