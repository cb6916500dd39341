"""Trains LightGBM on partitions: a grid search whose rows never come together in the driver.

Two trainers can fit the candidates: this process, which fits LightGBM to the training rows as one float32 matrix, and
the cluster's workers (`dosel.training.on_workers`), each with a share of the partitions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Protocol

import joblib
import numpy as np
import numpy.typing as npt
from mlflow.data.pandas_dataset import PandasDataset
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline

from dosel.errors import TrainingError
from dosel.model import held_out, reference
from dosel.sources.lake import Lake
from dosel.training import tracking
from dosel.training.candidates import Figures, plain
from dosel.training.evaluation import Evaluation, evaluate_counts
from dosel.training.fan_out import Engine
from dosel.training.grid_search import GridSearchCV
from dosel.training.partitions import HELD_OUT, Part, Partitions, Survey, sample, survey
from dosel.training.preprocessing import CLASSIFIER, pipeline
from dosel.training.rows import Counts, check_counts
from dosel.training.search import AnySearch, grid_of
from dosel.usecases import Family, UseCase


@dataclass(frozen=True)
class PartitionedJob:
    """What every task on partitions needs: the declaration, the partitions, and what a survey found of them."""

    use_case: UseCase
    partitions: Partitions
    survey: Survey

    @property
    def codes(self) -> Counts:
        """The target's class codes, sorted."""
        return np.array(sorted(self.use_case.target.labels), np.int64)

    def matrix(self, lake: Lake, chosen: Sequence[int], without: int) -> tuple[npt.NDArray[np.float32], Counts]:
        """The preprocessed training rows of some partitions: shape (rows, width), and their classes.

        Args:
            chosen: places of partitions.
            without: the fold that is left out; `HELD_OUT` leaves out none.
        """
        rows = int(self.counts(without)[list(chosen)].sum())
        made, classes, filled = np.zeros((0, 0), np.float32), np.zeros(rows, np.int64), 0
        for part in self.read(lake, chosen):
            features, of_part = part.at((part.places != HELD_OUT) & (part.places != without))
            if not len(of_part):
                continue
            found = self.survey.preprocessing.transform(features)
            if not made.size:
                made = np.zeros((rows, found.shape[1]), np.float32)
            made[filled : filled + len(found)] = found
            classes[filled : filled + len(found)] = of_part
            filled += len(found)
        return made, classes

    def counts(self, without: int) -> Counts:
        """The number of training rows by partition and class, without one fold."""
        training = self.survey.counts[:, :HELD_OUT]
        counts: Counts = training.sum(axis=1) - (0 if without == HELD_OUT else training[:, without])
        return counts

    def confusion(self, lake: Lake, chosen: Sequence[int], model: Any, place: int | None) -> Counts:
        """True classes by row and predicted classes by column, of shape (classes, classes), in the target's order.

        Args:
            place: count the rows of this fold, or of the holdout (`HELD_OUT`); None means all training rows.
        """
        size = len(self.codes)
        found = np.zeros(size * size, np.int64)
        for part in self.read(lake, chosen):
            features, classes = part.at(part.places != HELD_OUT if place is None else part.places == place)
            if len(classes):
                sides = (np.searchsorted(self.codes, side) for side in (classes, model.predict(features)))
                found += np.bincount(next(sides) * size + next(sides), minlength=size * size)
        order = np.searchsorted(self.codes, list(self.use_case.target.labels))
        return found.reshape(size, size)[np.ix_(order, order)]

    def read(self, lake: Lake, chosen: Sequence[int]) -> Iterator[Part]:
        return self.partitions.read(self.use_case, lake, [self.partitions.keys[i] for i in chosen])


class Trainer(Protocol):
    """Fits and evaluates on partitions."""

    def fit(self, job: PartitionedJob, model: Any, without: int) -> Any:
        """The `LGBMClassifier` fitted to the training rows without one fold (`HELD_OUT`: with all)."""

    def confusion(self, job: PartitionedJob, model: Any, place: int | None) -> Counts:
        """As `PartitionedJob.confusion`, over all partitions."""


class InProcess:
    """Fits in this process, to one float32 matrix of the training rows: four bytes for each row and column."""

    def __init__(self, lake: Lake, jobs: int | None) -> None:
        self._lake = lake
        self._jobs = jobs

    def fit(self, job: PartitionedJob, model: Any, without: int) -> Any:
        features, classes = job.matrix(self._lake, range(len(job.partitions.keys)), without)
        threads = model.n_jobs
        fitted = clone(model).set_params(n_jobs=joblib.effective_n_jobs(self._jobs)).fit(features, classes)
        return fitted.set_params(n_jobs=threads)

    def confusion(self, job: PartitionedJob, model: Any, place: int | None) -> Counts:
        return job.confusion(self._lake, range(len(job.partitions.keys)), model, place)


class PartitionedSearch(GridSearchCV):
    """A grid search over a LightGBM classifier on a `PartitionedJob` instead of rows. A row's hash decides its fold."""

    trainer: Trainer

    def fit(self, X: PartitionedJob, y: Any = None) -> "PartitionedSearch":
        """Score every candidate on every fold, then fit the best one to all training rows."""
        self._scores: list[float] = []
        self.scorer_, metric = self._get_scorers()
        self.multimetric_, self.n_splits_ = False, self.cv
        candidates = list(ParameterGrid(self.param_grid))
        out: list[dict[int, Figures]] = []
        for number, params in enumerate(candidates):
            out.append({fold: self._score(X, params, fold) for fold in range(self.cv)})
            cpu_seconds = sum(figures["cpu_time"] for figures in out[-1].values())
            self._report(number, len(candidates), params, self._results([params], out[-1:]), 0, cpu_seconds)
        self.cv_results_ = self._results(candidates, out)
        self.best_index_ = self._select_best_index(self.refit, metric, self.cv_results_)
        self.best_score_ = self.cv_results_["mean_test_score"][self.best_index_]
        self.best_params_ = self.cv_results_["params"][self.best_index_]
        started = perf_counter()
        self.best_estimator_ = self._fitted(X, self.best_params_, HELD_OUT)
        self.refit_time_ = perf_counter() - started
        return self

    def _score(self, job: PartitionedJob, params: Any, fold: int) -> Figures:
        started, cpu_started = perf_counter(), process_time()
        model = self._fitted(job, params, fold)
        fitted = perf_counter()
        counts = self.trainer.confusion(job, model, fold)
        return {
            "test_scores": evaluate_counts(job.use_case.target, counts).metrics[self.scoring],
            "fit_time": fitted - started,
            "score_time": perf_counter() - fitted,
            "cpu_time": process_time() - cpu_started,
        }

    def _fitted(self, job: PartitionedJob, params: Any, without: int) -> Pipeline:
        model = clone(self.estimator.steps[-1][1]).set_params(**plain(params))
        fitted = self.trainer.fit(job, model, without)
        return Pipeline([*job.survey.preprocessing.steps, (CLASSIFIER, fitted)])


@dataclass(frozen=True)
class PartitionedData:
    """Stored partitions, as `dosel.training.train` takes them."""

    partitions: Partitions
    lake: Lake
    trainer: Trainer

    @property
    def digest(self) -> str:
        return self.partitions.digest

    @property
    def batch_ids(self) -> tuple[int, ...]:
        return self.partitions.batch_ids

    def prepared(self, use_case: UseCase) -> "PartitionedRows":
        """Look at every partition once.

        Raises:
            TrainingError: the rows cannot give a meaningful model.
        """
        steps = pipeline(use_case, "passthrough")[:-1]
        found = survey(use_case, steps, self.partitions.read(use_case, self.lake))
        counts = found.counts[:, :HELD_OUT].sum(axis=(0, 1))
        check_counts(use_case, counts[counts > 0], found.rows_held_out)
        if found.lacking:
            raise TrainingError(f"{use_case.name}: all training rows lack a value of {', '.join(found.lacking)}")
        return PartitionedRows(PartitionedJob(use_case, self.partitions, found), self.lake, self.trainer)


@dataclass(frozen=True)
class PartitionedRows:
    """The rows of a training, read partition by partition (`dosel.training.rows.Rows`)."""

    job: PartitionedJob
    lake: Lake
    trainer: Trainer

    @property
    def rows_train(self) -> int:
        return self.job.survey.rows_train

    @property
    def rows_held_out(self) -> int:
        return self.job.survey.rows_held_out

    def dataset(self) -> PandasDataset:
        """The columns of the first training rows stand for all."""
        features, classes = next(
            part.at(part.places != HELD_OUT) for part in self._read() if (part.places != HELD_OUT).any()
        )
        return tracking.dataset_of(self.job.use_case, features.head(1), classes[:1], self.job.partitions.digest)

    def search(self, family: Family, seed: int, engine: Engine, storage: str, study: str) -> AnySearch:
        from lightgbm import LGBMClassifier

        model = family.build(seed)
        if not isinstance(model, LGBMClassifier):
            raise TrainingError(
                f"family {family.name!r} is partitioned and builds {type(model).__name__}: only LightGBM's "
                "LGBMClassifier trains on partitions; leave partitioned out, or build LightGBM"
            )
        use_case = self.job.use_case
        made = PartitionedSearch(
            pipeline(use_case, model), grid_of(family.space), scoring=use_case.gate.metric, cv=use_case.folds
        )
        made.trainer = self.trainer
        return made

    def fit(self, search: AnySearch) -> None:
        search.fit(self.job)

    def on_training_rows(self, search: AnySearch) -> tuple[Counts, dict[str, float]]:
        """The metrics that follow from counts: probabilities of all training rows are not kept."""
        found = evaluate_counts(
            self.job.use_case.target, self.trainer.confusion(self.job, search.best_estimator_, None)
        )
        figures = {
            f"training_{name}_score": found.metrics[f"{name}_weighted"] for name in ("precision", "recall", "f1")
        }
        figures["training_accuracy_score"] = found.metrics["accuracy"]
        return found.confusion, figures | {"training_score": found.metrics[search.scoring]}

    def on_held_out_rows(self, model: Any) -> Evaluation:
        return evaluate_counts(self.job.use_case.target, self.trainer.confusion(self.job, model, HELD_OUT))

    @property
    def kept(self) -> Sequence[str]:
        return self.job.partitions.keys

    def write(self, model: Any, folder: Path) -> list[Path]:
        training = sample(self._read(), False, self.rows_train, reference.MOST_ROWS)
        test = sample(self._read(), True, self.rows_held_out, held_out.MOST_ROWS)
        return [reference.write(self.job.use_case, *training, folder), held_out.write(model, *test, folder)]

    def _read(self) -> Iterator[Part]:
        return self.job.read(self.lake, range(len(self.job.partitions.keys)))
