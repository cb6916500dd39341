"""The calls to MLflow by MLflow's own client, for databases and folders; importing it takes seconds."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import requests
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run as MlflowRun
from mlflow.entities import ViewType
from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from dosel.registry.mlflow_calls import (
    MISSING,
    CheckFiles,
    Refused,
    Run,
    Unreachable,
    Version,
    finished_since,
    is_unknown_alias,
    of_runs,
)


@contextmanager
def translated() -> Iterator[None]:
    """Raise the exceptions of MLflow's client as `Refused` and `Unreachable`."""
    try:
        yield
    except MlflowException as error:
        # MLflow's client wraps most exceptions of requests.
        if isinstance(error.__context__, requests.RequestException):
            raise Unreachable(str(error.__context__)) from error
        raise Refused(error.message, error.error_code) from error
    except requests.RequestException as error:
        raise Unreachable(str(error)) from error


class MlflowLibrary:
    """MLflow at `uri`; see `MlflowCalls`."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client = MlflowClient(uri)

    @translated()
    def run(self, run_id: str) -> Run:
        return _run(self._client.get_run(run_id))

    @translated()
    def runs(self, run_ids: Sequence[str]) -> list[Run]:
        experiments = [e.experiment_id for e in self._client.search_experiments(view_type=ViewType.ALL)]
        wanted = of_runs(run_ids)
        found = _pages(lambda token: self._client.search_runs(experiments, wanted, ViewType.ALL, page_token=token))
        return [_run(run) for run in found]

    @translated()
    def finished_runs(self, experiment: str, since: datetime, most: int) -> list[Run]:
        found = self._client.get_experiment_by_name(experiment)
        if found is None:
            raise Refused(f"there is no experiment {experiment}", MISSING)
        runs = self._client.search_runs([found.experiment_id], finished_since(since), max_results=most)
        return [_run(run) for run in runs]

    @translated()
    def search_versions(self, wanted: str, most: int | None = None) -> list[Version]:
        if most is not None:
            return [_version(v) for v in self._client.search_model_versions(wanted, max_results=most)]
        found = _pages(lambda token: self._client.search_model_versions(wanted, page_token=token))
        return [_version(v) for v in found]

    @translated()
    def version(self, name: str, number: int) -> Version:
        return _version(self._client.get_model_version(name, str(number)))

    @translated()
    def aliases(self, name: str) -> dict[str, int]:
        return {alias: int(number) for alias, number in self._client.get_registered_model(name).aliases.items()}

    @translated()
    def aliased(self, name: str, alias: str) -> int | None:
        try:
            return int(self._client.get_model_version_by_alias(name, alias).version)
        except MlflowException as error:
            if error.error_code == MISSING or is_unknown_alias(error.message):
                return None
            raise

    @translated()
    def create_model(self, name: str, description: str) -> None:
        self._client.create_registered_model(name, description=description)

    @translated()
    def describe_model(self, name: str, text: str) -> None:
        self._client.update_registered_model(name, text)

    @translated()
    def create_version(self, name: str, source: str, run_id: str, model_id: str) -> int:
        return int(self._client.create_model_version(name, source=source, run_id=run_id, model_id=model_id).version)

    @translated()
    def set_alias(self, name: str, alias: str, number: int | None) -> None:
        if number is not None:
            self._client.set_registered_model_alias(name, alias, str(number))
        else:
            self._client.delete_registered_model_alias(name, alias)

    @translated()
    def set_stage(self, name: str, number: int, stage: str) -> None:
        with warnings.catch_warnings():
            # Deprecated in favour of aliases; kept for clients that load models:/name/Production.
            warnings.simplefilter("ignore", FutureWarning)
            self._client.transition_model_version_stage(name, str(number), stage)

    @translated()
    def describe_version(self, name: str, number: int, text: str) -> None:
        self._client.update_model_version(name, str(number), description=text)

    @translated()
    def tag_version(self, name: str, number: int, tag: str, value: str) -> None:
        self._client.set_model_version_tag(name, str(number), tag, value)

    @translated()
    def tag_run(self, run_id: str, tag: str, value: str) -> None:
        self._client.set_tag(run_id, tag, value)

    @translated()
    def log_metric(self, run_id: str, metric: str, value: float) -> None:
        self._client.log_metric(run_id, metric, value)

    @translated()
    def write_to_run(self, run_id: str, name: str, text: str) -> None:
        self._client.log_text(run_id, text, name)

    @translated()
    def download(self, name: str, number: int, folder: Path, check: CheckFiles | None = None) -> Path:
        # By this client: `models:/name/version` would be resolved by the process's default server.
        uri = self._client.get_model_version_download_uri(name, str(number))
        if check is not None:
            check(dict(_listed(get_artifact_repository(uri, tracking_uri=self._uri))))
        return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=self._uri))

    @translated()
    def add_file(self, name: str, number: int, file: str, content: bytes) -> None:
        uri = self._client.get_model_version_download_uri(name, str(number))
        with TemporaryDirectory(prefix="dosel-model-") as folder:
            copy = Path(folder) / file
            copy.write_bytes(content)
            get_artifact_repository(uri, tracking_uri=self._uri).log_artifact(str(copy))


def _listed(repository: ArtifactRepository, folder: str | None = None) -> Iterator[tuple[str, int | None]]:
    """Path and size of the files below a folder of artifacts."""
    for file in repository.list_artifacts(folder):
        if file.is_dir:
            yield from _listed(repository, file.path)
        else:
            yield file.path, file.file_size


def _run(run: MlflowRun) -> Run:
    models = tuple(str(model.model_id) for model in (run.outputs.model_outputs if run.outputs else ()))
    info, data = run.info, run.data
    return Run(info.run_id, data.metrics, data.params, data.tags, models, info.experiment_id)


def _version(version: MlflowVersion) -> Version:
    return Version(
        version.name,
        int(version.version),
        version.creation_timestamp or 0,
        version.run_id or "",
        version.source or "",
        version.model_id or "",
        version.current_stage or "None",
        tuple(version.aliases or ()),
    )


def _pages(page: Callable[[str | None], Any]) -> Iterator[Any]:
    token = None
    while token != "":
        found = page(token)
        yield from found
        token = found.token or ""
