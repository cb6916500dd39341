"""Garbage collection: deletes runs and artifacts that no registered version needs.

A run stays if a registered version, the ledger or a manifest references it or another run of the same training, if it
is younger than some days, or if it is still running. Artifacts are deleted before their run, so that a killed
collection can continue. What is deleted is listed first, and lies below the installation's own artifact folders.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment, LoggedModel, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from dosel.model.tags import is_run_id
from dosel.registry.artifact_roots import ArtifactRoot
from dosel.registry.mlflow_library import translated
from dosel.registry.registry import Registry

DAY_MS = 24 * 3600 * 1000
MODELS_FOLDER = "models"
"""Where MLflow keeps logged models, beside the folders of an experiment's runs."""

ORPHAN_AGE = timedelta(hours=6)
"""Time since its first listing after which a folder without a run is deleted: it may belong to a run that starts."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collected:
    """How much was, or would be, deleted.

    Attributes:
        orphans: folders of artifacts whose run was deleted, listed for `ORPHAN_AGE` or longer.
        waiting: the same, listed for a shorter time; they stay.
        kept: runs that stay.
    """

    runs: int
    models: int
    orphans: int
    waiting: int
    kept: int


@dataclass(frozen=True)
class Item:
    """Something to delete: the folder of its artifacts, and its run or model in MLflow, if there is one."""

    what: str
    folder: str
    run_id: str | None = None
    model_id: str | None = None


def collect(
    registry: Registry, experiments: Iterable[str], roots: Sequence[ArtifactRoot], days: int, delete: bool
) -> Collected:
    """List unneeded runs and artifacts of these experiments, and delete what was listed if `delete` is set.

    Only folders below `roots` are looked at: anybody who can open MLflow can create an experiment, a run or a model
    whose artifacts are said to be elsewhere.

    Raises:
        RegistryError: MLflow cannot be reached, or refused.
        WarehouseError: the data store cannot be reached, or refused.
    """
    store = registry.store
    client = MlflowClient(store.uri)
    with store.translated_errors(), translated():
        found = [client.get_experiment_by_name(name) for name in experiments]
        sweeps = [_Sweep(registry, client, e, days) for e in found if e is not None and _is_ours(e, roots)]
        models = [item for sweep in sweeps for item in sweep.models()]
        runs = [item for sweep in sweeps for item in sweep.runs()]
        folders = [folder for sweep in sweeps for folder in sweep.orphans() if _may_delete(folder, roots)]
        since, now = registry.ledger.orphans_since(folders), datetime.now(UTC)
        orphans = [Item(folder, folder) for folder in folders if now - since[folder] >= ORPHAN_AGE]
        for item in (*models, *runs, *orphans):
            log.info("%s %s", "deleting" if delete else "would delete", item.what)
            if delete and _may_delete(item.folder, roots):
                _delete(registry, client, item)
        kept = sum(len(sweep.kept_runs) for sweep in sweeps)
        return Collected(len(runs), len(models), len(orphans), len(folders) - len(orphans), kept)


def _is_ours(experiment: Experiment, roots: Sequence[ArtifactRoot]) -> bool:
    if _may_delete(experiment.artifact_location, roots):
        return True
    log.warning(
        "the experiment %s keeps its artifacts at %s, outside of this installation's folders; nothing of it is deleted",
        experiment.name,
        experiment.artifact_location,
    )
    return False


def _may_delete(folder: str, roots: Sequence[ArtifactRoot]) -> bool:
    return any(root.holds(folder) for root in roots)


def _delete(registry: Registry, client: MlflowClient, item: Item) -> None:
    """Delete the artifacts, then the run or model, unless its run was registered since the listing."""
    store = registry.store
    if item.run_id and store.is_registered(item.run_id):
        return
    get_artifact_repository(item.folder, tracking_uri=store.uri).delete_artifacts()
    if item.model_id:
        client.delete_logged_model(item.model_id)
    elif item.run_id and client.get_run(item.run_id).info.lifecycle_stage != "deleted":
        client.delete_run(item.run_id)


class _Sweep:
    """The listing of one experiment."""

    def __init__(self, registry: Registry, client: MlflowClient, experiment: Experiment, days: int) -> None:
        self._registry = registry
        self._client = client
        self._uri = registry.store.uri
        self._experiment = experiment
        self._root = experiment.artifact_location.rstrip("/")
        self._young = time.time() * 1000 - days * DAY_MS
        # In this order, so that nothing created meanwhile looks unneeded: runs exist before their folders and versions.
        self._folders = list(self._listed_folders())
        self._runs = {run.info.run_id: run for run in self._all_runs()}
        self._models = {model.model_id: model for model in self._all_models()}
        self.kept_runs, self._kept_models = self._needed()

    def models(self) -> Iterator[Item]:
        for name, model in self._models.items():
            folder = f"{self._root}/{MODELS_FOLDER}/{name}"
            if name not in self._kept_models and self._has_its_folder(name, model.artifact_location, folder):
                run_id = model.source_run_id if is_run_id(model.source_run_id or "") else None
                yield Item(f"model {name} of run {model.source_run_id}", folder, run_id, name)

    def runs(self) -> Iterator[Item]:
        for run_id, run in self._runs.items():
            folder = f"{self._root}/{run_id}"
            if run_id in self.kept_runs or not self._has_its_folder(run_id, run.info.artifact_uri, folder):
                continue
            if run.info.lifecycle_stage != "deleted" or self._files(f"{folder}/artifacts"):
                yield Item(f"run {run_id}, {run.info.run_name}", folder, run_id)

    def _has_its_folder(self, name: str, location: str, folder: str) -> bool:
        if location.rstrip("/") == f"{folder}/artifacts":
            return True
        log.warning("%s has its artifacts at %s instead of below %s; it stays", name, location, folder)
        return False

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

    def orphans(self) -> list[str]:
        """Folders of artifacts without a run or model: a killed collection leaves them."""
        known = {*self._runs, *self._models, *self._registry.ledger.referenced_runs()}
        named = ((folder, folder.rpartition("/")[2]) for folder in self._folders)
        return [folder for folder, name in named if name not in known and self._is_orphan(name)]

    def _is_orphan(self, name: str) -> bool:
        """Whether a name is that of a run or model which MLflow has in no experiment; other folders are not dosel's."""
        try:
            if is_run_id(name):
                self._client.get_run(name)
            elif is_run_id(name.removeprefix("m-")):
                self._client.get_logged_model(name)
            else:
                return False
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            return True
        return False

    def _listed_folders(self) -> Iterator[str]:
        repository = get_artifact_repository(self._root, tracking_uri=self._uri)
        for below in (None, MODELS_FOLDER):
            yield from (f"{self._root}/{file.path}" for file in repository.list_artifacts(below) if file.is_dir)

    def _files(self, uri: str) -> bool:
        return bool(get_artifact_repository(uri, tracking_uri=self._uri).list_artifacts())

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
