"""What MLflow is told of a training: runs, tags, candidates as they are scored, figures, one model."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.models import infer_signature
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from mlflow.utils.time import get_current_time_millis

from dosel import formats
from dosel.training.search import Scored

KEY = "dosel.training_key"
"""Tag that names a training by everything that decides its result."""

EXAMPLE_ANSWER = "dosel.example_answer"
"""Tag of a run: what its model answers to the use case's example, by class code, as told by what trained it."""

log = logging.getLogger(__name__)


def finished_run(client: MlflowClient, experiment_id: str, key: str) -> str | None:
    """The run that did this very training before, if one came to its end."""
    runs = client.search_runs(
        [experiment_id], f"tags.`{KEY}` = '{key}' AND attributes.status = 'FINISHED'", max_results=1
    )
    return str(runs[0].info.run_id) if runs else None


def close_abandoned(client: MlflowClient, experiment_id: str, key: str) -> None:
    """Marks as killed what a training that was ended half-way left running."""
    for run in client.search_runs([experiment_id], f"tags.`{KEY}` = '{key}' AND attributes.status = 'RUNNING'"):
        parent = run.info.run_id
        children = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}' AND attributes.status = 'RUNNING'"
        for child in client.search_runs([experiment_id], children):
            client.set_terminated(child.info.run_id, RunStatus.to_string(RunStatus.KILLED))
        client.set_terminated(parent, RunStatus.to_string(RunStatus.KILLED))
        log.info("run %s was left behind by a training that was killed; it is closed", parent)


@contextmanager
def autologging() -> Iterator[None]:
    """scikit-learn's autologging for one block: parameters, scores and `cv_results_` of the search.

    It logs no model, since it would log two and name the search, and no child runs, since it would make
    them only after the fit: `CandidateRuns` makes them while the search goes on.
    """
    mlflow.sklearn.autolog(
        log_models=False, log_datasets=False, log_post_training_metrics=False, max_tuning_runs=0, silent=True
    )
    try:
        yield
    finally:
        mlflow.sklearn.autolog(disable=True, silent=True)


class CandidateRuns:
    """A child run for each candidate, made in the moment it was scored."""

    def __init__(self, client: MlflowClient, experiment_id: str, parent: str, family: str) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._parent = parent
        self._family = family
        self._runs: list[str] = []

    def __call__(self, scored: Scored) -> None:
        words = " ".join(f"{name}={value}" for name, value in scored.params.items())
        log.info(
            "candidate %d/%d  %s  score %.4f  (best %.4f)",
            scored.number,
            scored.of,
            words,
            scored.score,
            scored.best,
        )
        now = get_current_time_millis()
        seconds = scored.metrics.get("mean_fit_time", 0) + scored.metrics.get("mean_score_time", 0)
        run = self._client.create_run(
            self._experiment_id,
            start_time=now - round(1000 * seconds),
            tags={
                MLFLOW_PARENT_RUN_ID: self._parent,
                MLFLOW_RUN_NAME: words,
                "dosel.family": self._family,
                "dosel.candidate": f"{scored.number}/{scored.of}",
            },
        )
        run_id = run.info.run_id
        self._client.log_batch(
            run_id,
            metrics=[Metric(name, value, now, 0) for name, value in scored.metrics.items()],
            params=[Param(name, str(value)) for name, value in scored.params.items()],
        )
        self._client.set_terminated(run_id)
        self._runs.append(run_id)

    def rank(self, ranks: Any) -> None:
        """Adds each candidate's rank, 1 for the best: known only now that all are scored."""
        now = get_current_time_millis()
        for run_id, rank in zip(self._runs, ranks, strict=True):
            self._client.log_batch(run_id, metrics=[Metric("rank_test_score", float(rank), now, 0)])


def log_rows(rows: pd.DataFrame, name: str, digest: str, target: str) -> None:
    """Names the training rows in the run; the rows themselves stay in the warehouse."""
    # MLflow keeps at most 36 characters of a digest; the whole one is a tag.
    dataset = mlflow.data.from_pandas(rows, name=name, targets=target, digest=digest[:36])
    mlflow.log_input(dataset, context="training")


def log_model(model: Any, example: pd.DataFrame) -> None:
    """Logs the model as `model`, with what it takes and gives."""
    mlflow.sklearn.log_model(
        model,
        name="model",
        signature=infer_signature(example, model.predict(example)),
        input_example=example,
        serialization_format=formats.FORMAT,
        skops_trusted_types=list(formats.TRUSTED_TYPES),
        pip_requirements=formats.requirements(),
    )


def tag(client: MlflowClient, run_id: str, tags: Mapping[str, Any]) -> None:
    """Sets tags of a run in one call; what is no text is written as JSON."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in tags.items()}
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in texts.items()])
