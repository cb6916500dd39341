"""Garbage collection: deletes runs and artifacts that no registered version needs.

A run stays if a registered version, the ledger or a manifest references it or another run of the same training, if it
is younger than some days, or if it is still running. Artifacts are deleted before their run, so that a killed
collection can continue.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run, ViewType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from dosel.registry.registry import Registry

DAY_MS = 24 * 3600 * 1000
MODELS_FOLDER = "models"
"""Where MLflow keeps logged models, beside the folders of an experiment's runs."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collected:
    """How much was, or would be, deleted; `orphans` are folders of artifacts whose run was deleted."""

    runs: int
    models: int
    orphans: int
    kept: int


def collect(registry: Registry, experiments: Iterable[str], days: int, delete: bool) -> Collected:
    """Delete unneeded runs and artifacts of these experiments, or only count them.

    Raises:
        RegistryError: MLflow cannot be reached, or refused.
    """
    store = registry.store
    with store.translated_errors():
        totals = [0, 0, 0, 0]
        for name in experiments:
            experiment = store.client.get_experiment_by_name(name)
            if experiment is None:
                continue
            counted = _Sweep(registry, experiment, days, delete).counts()
            totals = [total + count for total, count in zip(totals, counted, strict=True)]
        return Collected(*totals)


class _Sweep:
    """The collection of one experiment."""

    def __init__(self, registry: Registry, experiment: Any, days: int, delete: bool) -> None:
        self._registry = registry
        self._client: MlflowClient = registry.store.client
        self._uri = registry.store.uri
        self._experiment = experiment
        self._young = time.time() * 1000 - days * DAY_MS
        self._delete = delete
        # In this order, so that nothing created meanwhile looks unneeded: runs exist before their folders and versions.
        self._folders = list(self._listed_folders())
        self._runs = {run.info.run_id: run for run in self._all_runs()}
        self._models = {model.model_id: model for model in self._all_models()}
        self._kept_runs, self._kept_models = self._needed()

    def counts(self) -> tuple[int, int, int, int]:
        """Numbers of deleted runs, models and orphaned folders, and of runs that stay."""
        models = [m for m in self._models.values() if m.model_id not in self._kept_models]
        for model in models:
            self._log_dry_run(f"model {model.model_id} of run {model.source_run_id}")
            if self._may_delete(model.source_run_id):
                self._remove(model.artifact_location)
                self._client.delete_logged_model(model.model_id)
        runs = [run for run in self._runs.values() if run.info.run_id not in self._kept_runs]
        gone = 0
        for run in runs:
            if run.info.lifecycle_stage == "deleted" and not self._files(run.info.artifact_uri):
                continue
            gone += 1
            self._log_dry_run(f"run {run.info.run_id}, {run.info.run_name}")
            if self._may_delete(run.info.run_id):
                self._remove(run.info.artifact_uri)
                if run.info.lifecycle_stage != "deleted":
                    self._client.delete_run(run.info.run_id)
        orphans = self._orphans()
        for folder in orphans:
            self._log_dry_run(folder)
            if self._delete:
                self._remove(folder)
        return gone, len(models), len(orphans), len(self._kept_runs)

    def _log_dry_run(self, what: str) -> None:
        if not self._delete:
            log.info("would delete %s", what)

    def _needed(self) -> tuple[set[str], set[str]]:
        named_runs, named_models = self._registry.store.referenced()
        named_runs |= self._registry.ledger.referenced_runs()
        named_runs |= {self._models[m].source_run_id for m in named_models if m in self._models}
        trainings = {i: self._training(i) for i in self._runs}
        needed = {trainings[i] for i, run in self._runs.items() if i in named_runs or self._is_young(run)}
        kept = {i for i, training in trainings.items() if training in needed}
        models = {
            name
            for name, model in self._models.items()
            if name in named_models or model.source_run_id in kept or model.creation_timestamp >= self._young
        }
        return kept, models

    def _training(self, run_id: str) -> str:
        """The topmost parent of a run: a training stays or is deleted as a whole."""
        while (run := self._runs.get(run_id)) and (parent := run.data.tags.get(MLFLOW_PARENT_RUN_ID)):
            run_id = parent
        return run_id

    def _is_young(self, run: Run) -> bool:
        last = run.info.end_time or run.info.start_time
        running = run.info.status == "RUNNING" and run.info.lifecycle_stage != "deleted"
        return running or last is None or last >= self._young

    def _may_delete(self, run_id: str | None) -> bool:
        """Whether a run is still unregistered: it may have been registered since the listing."""
        if not self._delete:
            return False
        return not (run_id and self._registry.store.is_registered(run_id))

    def _orphans(self) -> list[str]:
        """Folders of artifacts without a run or model: a killed collection leaves them."""
        known = {*self._runs, *self._models, *self._registry.ledger.referenced_runs(), MODELS_FOLDER}
        return [folder for folder in self._folders if folder.rpartition("/")[2] not in known]

    def _listed_folders(self) -> Iterator[str]:
        root = self._experiment.artifact_location.rstrip("/")
        repository = get_artifact_repository(root, tracking_uri=self._uri)
        for below in (None, MODELS_FOLDER):
            yield from (f"{root}/{file.path}" for file in repository.list_artifacts(below) if file.is_dir)

    def _files(self, uri: str) -> bool:
        return bool(get_artifact_repository(uri, tracking_uri=self._uri).list_artifacts())

    def _remove(self, uri: str) -> None:
        log.info("deleting %s", uri)
        get_artifact_repository(uri.removesuffix("/artifacts"), tracking_uri=self._uri).delete_artifacts()

    def _all_runs(self) -> Sequence[Run]:
        return list(
            _pages(
                lambda token: self._client.search_runs(
                    [self._experiment.experiment_id], run_view_type=ViewType.ALL, max_results=1000, page_token=token
                )
            )
        )

    def _all_models(self) -> Sequence[LoggedModel]:
        return list(
            _pages(
                lambda token: self._client.search_logged_models(
                    [self._experiment.experiment_id], max_results=100, page_token=token
                )
            )
        )


def _pages(page: Any) -> Iterator[Any]:
    token = None
    while token != "":
        found = page(token)
        yield from found
        token = found.token or ""
