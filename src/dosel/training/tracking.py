"""Writes a training to MLflow: runs, tags, candidates as they are scored, and the model."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.data.pandas_dataset import PandasDataset
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, Param, Run, RunStatus, RunTag
from mlflow.models import Model, infer_signature
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE
from mlflow.utils.time import get_current_time_millis

from dosel.closed import shown
from dosel.model import bundle, tags
from dosel.model.description import describe
from dosel.model.facts import HOLDOUT, Facts, TrainingLedger
from dosel.model.predictor import Predictor
from dosel.training.candidates import ScoredCandidate
from dosel.training.preprocessing import CLASSIFIER
from dosel.training.search_log import class_of, params_of
from dosel.usecases import UseCase

RANK = "rank_test_score"

PROGRESS_LINES = 3
"""Lines in the log about a family's search before its last candidate: MLflow has every candidate."""

log = logging.getLogger(__name__)


def open_experiment(client: MlflowClient, use_case: UseCase) -> str:
    """Make a use case's experiment the current one, with its description and view, and return its id."""
    experiment = mlflow.set_experiment(use_case.experiment)
    for name, text in {MLFLOW_RUN_NOTE: describe(use_case), tags.VIEW: trainings_view()}.items():
        if experiment.tags.get(name) != text:
            client.set_experiment_tag(experiment.experiment_id, name, text)
    return str(experiment.experiment_id)


def trainings_view() -> str:
    """The state of MLflow's runs list that shows figures beside the names; without it, no figure is shown.

    The state has MLflow's names of the columns and their widths, which together fit on a page of 1,280 pixels.
    """
    figures = [f"metrics.`{HOLDOUT}{metric}`" for metric in ("accuracy", "f1_macro")]
    widths = {"attributes.`Run Name`": 230, "runDateAndNestInfo": 120, **dict.fromkeys(figures, 135)}
    return json.dumps({"selectedColumns": figures, "columnOrder": list(widths), "columnWidths": widths})


def dated(rows: int) -> str:
    """The end of a run's name: the number of rows and the current time; the year is in MLflow's list.

    What differs most between runs comes first, since MLflow's list shows only the first letters of a name.
    """
    return f"{rows:,} rows · {datetime.now(UTC):%-d %b %H:%M} UTC"


def with_score(use_case: UseCase, score: float, name: str) -> str:
    """A finished run's name, with its score first; coarse for a closed use case: MLflow's client prints the name."""
    return f"{shown(use_case, round(score, 3))} {name}"


def finished_run(client: MlflowClient, experiment_id: str, key: str, is_attested: Callable[[str], bool]) -> str | None:
    """The finished comparison of a training with this key, whose models are all attested; or None."""
    wanted = f"tags.`{tags.TRAINING_KEY}` = '{key}' AND tags.`{tags.RUN_KIND}` = '{tags.COMPARISON}'"
    for run in _finished(client, experiment_id, wanted):
        runs = tags.read_runs(run.data.tags.get(tags.FAMILIES, ""))
        if runs and all(map(is_attested, runs.values())):
            return str(run.info.run_id)
    return None


def adopt_finished(
    client: MlflowClient,
    experiment_id: str,
    key: str,
    parent: Run,
    training: str,
    is_attested: Callable[[str], bool],
) -> str | None:
    """Adopt a family's finished run from a training that was killed later; return its id, or None."""
    for run in _finished(client, experiment_id, f"tags.`{tags.FAMILY_KEY}` = '{key}'"):
        run_id = str(run.info.run_id)
        if is_attested(run_id):
            tag(client, run_id, {MLFLOW_PARENT_RUN_ID: parent.info.run_id, tags.TRAINING_KEY: training})
            return run_id
    return None


def _finished(client: MlflowClient, experiment_id: str, wanted: str) -> list[Run]:
    return list(client.search_runs([experiment_id], f"{wanted} AND attributes.status = 'FINISHED'"))


def close_abandoned(client: MlflowClient, experiment_id: str, key: str) -> None:
    """Mark the running runs of a killed training as killed."""
    for run in client.search_runs(
        [experiment_id], f"tags.`{tags.TRAINING_KEY}` = '{key}' AND attributes.status = 'RUNNING'"
    ):
        parent = run.info.run_id
        children = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}' AND attributes.status = 'RUNNING'"
        for child in client.search_runs([experiment_id], children):
            client.set_terminated(child.info.run_id, RunStatus.to_string(RunStatus.KILLED))
        client.set_terminated(parent, RunStatus.to_string(RunStatus.KILLED))
        log.info("run %s belongs to a training that was killed; it is marked as killed", parent)


class CandidateRuns:
    """Creates a child run for each candidate during the search, in a thread, so that MLflow does not slow it down.

    A context manager: its end waits for the last run and the last upload. An MLflow error is raised by the next call,
    or at the end.
    """

    def __init__(self, client: MlflowClient, parent: Run, family: str, estimator: Any) -> None:
        self._client = client
        self._parent = parent
        self._family = family
        self._params = {param.key: param for param in params_of(estimator, deep=True)}
        self._tags = {tag.key: tag.value for tag in class_of(estimator)}
        self._runs: dict[int, str] = {}
        self._cpu_seconds = 0.0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="candidate-runs")
        self._uploader = ThreadPoolExecutor(1, thread_name_prefix="uploads")
        self._written: list[Future[Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for pool in (self._writer, self._uploader):
            pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            self._raise_errors()

    def __call__(self, scored: ScoredCandidate) -> None:
        self._cpu_seconds += scored.cpu_seconds
        if PROGRESS_LINES * scored.done // scored.of > PROGRESS_LINES * (scored.done - 1) // scored.of:
            log.info("%s: %d of %d candidates, best score %.4f", self._family, scored.done, scored.of, scored.best)
        self._raise_errors()
        self._written.append(self._writer.submit(self._write, scored, get_current_time_millis()))

    def log_speed(self, seconds: float, cores: int) -> None:
        """Log how many cores the candidates kept busy, on whichever machine, in a search of that duration."""
        log.info(
            "%s: %d candidates in %.1f s; %d cores available, %.1f busy on average",
            self._family,
            len(self._written),
            seconds,
            cores,
            self._cpu_seconds / seconds,
        )

    def write_later(self, write: Callable[[], object]) -> None:
        """Run `write` in a second thread, beside the candidates, in the order of the calls."""
        self._written.append(self._uploader.submit(write))

    def rank(self, ranks: Iterable[int]) -> None:
        """Add each candidate's rank, 1 for the best, in the order of the candidates."""
        now = get_current_time_millis()
        for number, rank in enumerate(ranks, start=1):
            self._written.append(self._writer.submit(self._write_rank, number, Metric(RANK, float(rank), now, 0)))

    def _write(self, scored: ScoredCandidate, now: int) -> None:
        seconds = scored.metrics.get("mean_fit_time", 0) + scored.metrics.get("mean_score_time", 0)
        run = self._client.create_run(
            self._parent.info.experiment_id,
            start_time=now - round(1000 * seconds),
            tags={
                MLFLOW_PARENT_RUN_ID: self._parent.info.run_id,
                MLFLOW_RUN_NAME: format_params(scored.params),
                tags.FAMILY: self._family,
                tags.CANDIDATE: f"{scored.number}/{scored.of}",
                **({tags.PRUNED: "true"} if scored.pruned else {}),
                **self._tags,
            },
        )
        run_id = run.info.run_id
        own = {name: str(value) for name, value in scored.params.items()}
        whole = {f"{CLASSIFIER}__{name}": value for name, value in own.items()}
        params = {**self._params, **{n: Param(n, v) for n, v in {**own, **whole}.items()}}
        self._client.log_batch(
            run_id,
            metrics=[Metric(name, value, now, 0) for name, value in scored.metrics.items()],
            params=list(params.values()),
        )
        self._client.set_terminated(run_id, end_time=now)
        self._runs[scored.number] = run_id

    def _write_rank(self, number: int, rank: Metric) -> None:
        self._client.log_batch(self._runs[number], metrics=[rank])

    def _raise_errors(self) -> None:
        for future in self._written:
            if future.done():
                future.result()


def format_params(params: Mapping[str, Any]) -> str:
    """Parameters in one line; floats have four digits."""
    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()
    )


def dataset_of(use_case: UseCase, features: pd.DataFrame, classes: Any, digest: str) -> PandasDataset:
    """The training rows' name, digest and columns, as a run's dataset; the rows stay in the data store."""
    target = use_case.target.name
    table = features.assign(**{target: classes})
    # MLflow stores at most 36 characters of a digest; a tag has all of it.
    return mlflow.data.from_pandas(table, name=f"{use_case.name}_clean", targets=target, digest=digest[:36])


def log_model(
    use_case: UseCase,
    run: Run,
    model: Any,
    facts: Facts,
    ledger: TrainingLedger,
    extra_files: Sequence[Path] = (),
    metrics: Sequence[Metric] = (),
) -> None:
    """Write the model and its backend to local files, record their digests in the ledger, sign and upload them.

    The order is what makes digests and signature trustworthy: nobody else has seen the files when they are hashed.

    Args:
        metrics: the run's metrics as they were logged, which become the model's, too.
    """
    client, run_id = MlflowClient(), str(run.info.run_id)
    logged = client.create_logged_model(run.info.experiment_id, "model", run_id, params=dict(facts.params))
    about = Model(
        artifact_path=logged.artifact_location, model_uuid=logged.model_id, run_id=run_id, model_id=logged.model_id
    )
    # The example has integers where a client would write them, and MLflow's signature then accepts those.
    example = pd.DataFrame([use_case.example])
    with TemporaryDirectory(prefix="dosel-trained-") as temporary:
        folder = Path(temporary) / "model"
        mlflow.sklearn.save_model(
            model,
            str(folder),
            mlflow_model=about,
            signature=infer_signature(example, model.predict(example)),
            input_example=example,
            serialization_format=bundle.FORMAT,
            skops_trusted_types=list(bundle.TRUSTED_TYPES),
            pip_requirements=bundle.requirements(),
            extra_files=[str(file) for file in extra_files] or None,
        )
        _write_backend(use_case, model, folder)
        recorded = replace(facts, sizes=bundle.file_sizes(folder))
        signed = ledger.attest(use_case.model_name, run_id, bundle.hash_files(folder), recorded)
        (folder / bundle.SIGNATURE_FILE).write_bytes(signed)
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    # At their own times, so that MLflow shows them beside the model and not as second values of the run.
    figures = [
        Metric(metric.key, metric.value, metric.timestamp, metric.step, model_id=logged.model_id) for metric in metrics
    ]
    client.log_batch(run_id, metrics=figures)


def _write_backend(use_case: UseCase, model: Any, folder: Path) -> None:
    """Choose the backend that answers for a model, and write it beside the model."""
    try:
        bundle.write_backend(Predictor(use_case, model), folder)
    except Exception as error:  # noqa: BLE001  whatever is wrong with a model, the gate finds it and reports it
        log.warning("%s: the model cannot answer: %s", use_case.name, error)


def as_texts(tags: Mapping[str, Any]) -> dict[str, str]:
    """Tags as MLflow stores them: values other than text as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in tags.items()}


def tag(client: MlflowClient, run_id: str, tags: Mapping[str, Any]) -> None:
    """Set tags of a run in one call; values other than text are written as JSON."""
    client.log_batch(run_id, tags=as_tags(tags))


def as_tags(tags: Mapping[str, Any]) -> list[RunTag]:
    """Tags as MLflow's client takes them."""
    return [RunTag(name, value) for name, value in as_texts(tags).items()]
