"""The fan-out of a search: the tasks that score groups of candidates on folds, and the engines that run them.

An engine decides where and when a task runs, never what it returns. A search places results by group and fold, so their
order changes nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import joblib
from sklearn.base import is_classifier
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline

from dosel.training.candidates import Figures, Fold, prepare_fold, score_fold
from dosel.training.strategies import Params, Strategy


@dataclass(frozen=True)
class SearchJob:
    """What all tasks of a search have in common.

    Attributes:
        preprocessing: the unfitted steps before the model; `model` is the unfitted last step.
        plan: the strategy that fits groups.
        cv: the number of folds, or a splitter of scikit-learn.
    """

    preprocessing: Pipeline
    model: Any
    plan: Strategy
    scorer: Any
    cv: Any

    def splits(self, X: Any, y: Any) -> list[tuple[Any, Any]]:
        """The positions of each fold's training and test rows."""
        return list(check_cv(self.cv, y, classifier=is_classifier(self.model)).split(X, y))


@dataclass(frozen=True)
class Task:
    """A group of candidates, by their parameters, to be scored on one fold; both are numbered from 0."""

    group: int
    fold: int
    params: Sequence[Params]


class Folds(Protocol):
    """The prepared folds of one search."""

    count: int

    def score(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, list[Figures]]]:
        """Yield each task with the figures of its candidates as soon as they are known, in any order."""


class Engine(Protocol):
    """Runs tasks."""

    @property
    def jobs(self) -> int | None:
        """Cores of this process, for what runs in it; -1 is all of them."""

    @property
    def side_by_side(self) -> int:
        """The number of searches that should run at the same time to keep the engine busy."""

    def cores(self) -> int:
        """The number of cores that score candidates."""

    def folds(self, job: SearchJob, X: Any, y: Any) -> AbstractContextManager[Folds]:
        """Prepare the folds of a search; they are freed at the end of the block."""

    def close(self) -> None:
        """End searches that other threads have begun, with an error in those threads."""


class Threads:
    """Runs tasks in threads of this process.

    Not in processes: trees are grown outside Python's lock, and in a Celery worker, which may not fork, joblib would
    silently run one process.
    """

    side_by_side = 1

    def __init__(self, jobs: int | None) -> None:
        self.jobs = jobs

    def cores(self) -> int:
        """The number of threads."""
        with joblib.parallel_config(backend="threading"):
            return int(joblib.effective_n_jobs(self.jobs))

    @contextmanager
    def folds(self, job: SearchJob, X: Any, y: Any) -> Iterator[Folds]:
        """Prepare each fold in a thread."""
        parallel = joblib.Parallel(n_jobs=self.jobs, prefer="threads", return_as="generator")
        prepared = parallel(
            joblib.delayed(prepare_fold)(job.preprocessing, job.plan, X, y, *split) for split in job.splits(X, y)
        )
        yield _InThreads(job, list(prepared), parallel)

    def close(self) -> None:
        """Nothing to end: it runs one search at a time, in the caller's thread."""


class _InThreads:
    def __init__(self, job: SearchJob, folds: Sequence[Fold], parallel: joblib.Parallel) -> None:
        self._job = job
        self._folds = folds
        self._parallel = parallel
        self.count = len(folds)

    def score(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, list[Figures]]]:
        job = self._job
        scored = self._parallel(
            joblib.delayed(score_fold)(job.plan, job.model, task.params, self._folds[task.fold], job.scorer)
            for task in tasks
        )
        # In the tasks' order.
        yield from zip(tasks, scored, strict=True)
