"""One training, from clean rows to a finished run with one logged model."""

import hashlib
import logging
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any

import joblib
import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient

import dosel
from dosel import rows
from dosel.errors import TrainingError
from dosel.training import record, tracking
from dosel.training.evaluation import confusion_figure, evaluate
from dosel.training.fingerprint import digest
from dosel.training.preprocessing import CLASSIFIER, pipeline
from dosel.training.search import GridSearchCV, Scored, Watcher, plain
from dosel.usecases import Candidate, UseCase

PARALLEL = {"backend": "threading"}
"""Threads, not processes: trees are grown outside Python's lock, and a Celery worker may not fork: processes
would be one there, with no more than a warning."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Clean rows and where they came from.

    `table` holds the features in canonical types and the target; `keys` each row's key.
    """

    table: pd.DataFrame
    keys: Any
    batch_ids: tuple[int, ...]

    @property
    def digest(self) -> str:
        return rows.digest(self.keys)


def training_key(use_case: UseCase, data_digest: str, seed: int) -> str:
    """Names a training by what decides its result: rows, split, candidates, seed and our version."""
    candidates = [(c.family, sorted((n, tuple(v)) for n, v in c.grid.items())) for c in use_case.candidates]
    parts = (
        dosel.__version__,
        use_case.name,
        data_digest,
        rows.split_version(use_case),
        use_case.folds,
        candidates,
        seed,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def train(
    use_case: UseCase,
    data: TrainingData,
    tracking_uri: str,
    seed: int,
    jobs: int,
    told: Watcher | None = None,
) -> str:
    """Searches, evaluates on the held-out part and logs; done before, the same training is not done again.

    Args:
        jobs: cores to use; -1 is all of them.
        told: is called with each candidate in the moment it is scored.

    Returns:
        The id of the finished run.

    Raises:
        TrainingError: the rows are too few, or of one class only.
    """
    mlflow.set_tracking_uri(tracking_uri)
    client = MlflowClient(tracking_uri)
    experiment_id = mlflow.set_experiment(use_case.experiment).experiment_id
    key = training_key(use_case, data.digest, seed)
    if done := tracking.finished_run(client, experiment_id, key):
        log.info("these rows were trained on before, in run %s; nothing to do", done)
        return done
    tracking.close_abandoned(client, experiment_id, key)

    held_out = rows.is_test(use_case, data.table)
    features = rows.canonical(use_case, data.table)
    classes = data.table[use_case.target.name].to_numpy(dtype=np.int64)
    _check(use_case, classes[~held_out], classes[held_out])
    candidate = use_case.candidates[0]

    with mlflow.start_run(run_name=f"{use_case.name} {candidate.family}") as run:
        run_id = str(run.info.run_id)
        tracking.tag(
            client,
            run_id,
            {
                tracking.KEY: key,
                "dosel.use_case": use_case.name,
                "dosel.family": candidate.family,
                "dosel.code_version": dosel.__version__,
                "dosel.data_digest": data.digest,
                "dosel.batch_ids": list(data.batch_ids),
                "dosel.split_version": rows.split_version(use_case),
                "dosel.rows_train": int((~held_out).sum()),
                "dosel.rows_test": int(held_out.sum()),
                "dosel.cores": cores(jobs),
            },
        )
        table = features.assign(**{use_case.target.name: classes})
        tracking.log_rows(table[~held_out], f"{use_case.name}_clean", data.digest, use_case.target.name)
        search = _search(use_case, candidate, seed, jobs)
        record.settings(client, run_id, search)
        with tracking.CandidateRuns(client, run, candidate.family, search.estimator) as watcher:
            search.watcher = _both(watcher, told)
            _fit(search, features[~held_out], classes[~held_out])
            watcher.rank(search.cv_results_["rank_test_score"])
            record.results(client, run_id, search, use_case.target, features[~held_out], classes[~held_out])
            model = search.best_estimator_
            evaluation = evaluate(use_case.target, classes[held_out], model.predict(features[held_out]))
            mlflow.log_metrics({f"test_{name}": value for name, value in evaluation.metrics.items()})
            mlflow.log_dict(evaluation.report, "evaluation/per_class_report.json")
            figure = confusion_figure(use_case.target, evaluation.confusion)
            mlflow.log_figure(figure, "evaluation/confusion_matrix.png")
            # As a client would write it: whole numbers as integers, which is what MLflow then lets in.
            tracking.log_model(model, pd.DataFrame([use_case.example]))
            [answer] = model.predict_proba(rows.frame(use_case, [use_case.example]))
            known = dict(zip(map(int, model.classes_), map(float, answer), strict=True))
            tracking.tag(client, run_id, {tracking.EXAMPLE_ANSWER: known, "dosel.model_digest": digest(model)})
        log.info("best: %s, test accuracy %.4f", plain(search.best_params_), evaluation.metrics["accuracy"])
    return run_id


def cores(jobs: int) -> int:
    """How many cores a training that was given `jobs` works on, wherever it runs."""
    with joblib.parallel_config(**PARALLEL):
        return int(joblib.effective_n_jobs(jobs))


def _search(use_case: UseCase, candidate: Candidate, seed: int, jobs: int) -> GridSearchCV:
    search = GridSearchCV(
        pipeline(use_case, candidate.build(seed)),
        {f"{CLASSIFIER}__{name}": list(values) for name, values in candidate.grid.items()},
        scoring=use_case.gate.metric,
        cv=use_case.folds,
        n_jobs=jobs,
        error_score="raise",
    )
    search.strategy = candidate.strategy
    return search


def _both(first: Watcher, second: Watcher | None) -> Watcher:
    def watch(scored: Scored) -> None:
        first(scored)
        if second is not None:
            second(scored)

    return watch


def _fit(search: GridSearchCV, features: pd.DataFrame, classes: Any) -> None:
    """Searches, and says how many cores that kept busy."""
    started, burnt = perf_counter(), process_time()
    with joblib.parallel_config(**PARALLEL):
        search.fit(features, classes)
    seconds, busy = perf_counter() - started, process_time() - burnt
    log.info(
        "%d candidates in %.1f s; of %d cores %.1f were busy",
        len(search.cv_results_["params"]),
        seconds,
        cores(search.n_jobs),
        busy / seconds,
    )


def _check(use_case: UseCase, train: Any, test: Any) -> None:
    """Refuses what could only give a meaningless model, before anything is logged."""
    counts = np.unique_counts(train)
    if len(test) == 0 or len(counts.values) < 2 or counts.counts.max() < use_case.folds:
        raise TrainingError(
            f"{use_case.name}: {len(train)} rows of {len(counts.values)} classes to train on and {len(test)} "
            f"to test on are too few; pull more batches first"
        )
