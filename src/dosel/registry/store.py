"""Calls to MLflow's model registry: versions, aliases, stages and files."""

import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run, RunData, ViewType
from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from dosel.errors import ModelNotFound, RegistryError
from dosel.model.tags import FAMILIES, is_run_id, read_runs

STAGE = "Production"
ARCHIVED = "Archived"

REPORT = "gate.json"
"""Artifact of a run: the gate's report on its version."""

CARD = "model_card.md"
"""Artifact of a run: the model card of its version."""


@dataclass(frozen=True)
class ModelVersion:
    """A registered version, with metrics, parameters and `dosel.` tags.

    Attributes:
        run_id: "" if MLflow names no run, or a text that is no run's id.
        attested: metrics, parameters and tags are the ledger's. Otherwise they are MLflow's, and every user of MLflow
            can edit them.
    """

    name: str
    version: int
    run_id: str
    created_at: datetime
    stage: str
    aliases: tuple[str, ...]
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    attested: bool = False


class Store:
    """MLflow at `uri`. Every call may raise RegistryError: MLflow cannot be reached, or refused."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.client = MlflowClient(uri)

    def create_version(self, name: str, description: str, run_id: str) -> ModelVersion:
        """Create a version of the model that a run logged; if there is one, return it."""
        _check_run_id(run_id)
        with self.translated_errors():
            models = self.client.get_run(run_id).outputs.model_outputs
            if not models:
                raise RegistryError(f"run {run_id} logged no model; train again")
            source = f"models:/{models[0].model_id}"
            # Compare the source too: in MLflow's interface, a version may name any run and any files.
            known = [v for v in self._search(f"name = '{name}' AND run_id = '{run_id}'") if v.source == source]
            if known:
                return self._version(name, min(int(v.version) for v in known))
            try:
                self.client.create_registered_model(name, description=description)
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                    raise
            made = self.client.create_model_version(name, source=source, run_id=run_id, model_id=models[0].model_id)
            return self._version(name, int(made.version))

    def compared(self, run_id: str) -> dict[str, str]:
        """A comparison's runs by family.

        Raises:
            RegistryError: the run is not a comparison.
        """
        _check_run_id(run_id)
        with self.translated_errors():
            runs = read_runs(self.client.get_run(run_id).data.tags.get(FAMILIES, ""))
        if not runs:
            raise RegistryError(f"run {run_id} compares no models; train again")
        return runs

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, newest first; none if it is not registered."""
        with self.translated_errors():
            found = sorted(self._search(f"name = '{name}'"), key=lambda v: int(v.version), reverse=True)
            if not found:
                return []
            # MLflow's search leaves aliases out; the registered model has them.
            aliases, runs = self.client.get_registered_model(name).aliases, self._runs(v.run_id for v in found)
            return [
                _version(v, runs.get(v.run_id), [a for a, n in aliases.items() if int(n) == int(v.version)])
                for v in found
            ]

    def version(self, name: str, number: int) -> ModelVersion:
        """One version.

        Raises:
            ModelNotFound: there is no version with that number.
        """
        with self.translated_errors(missing=f"{name} has no version {number}"):
            return self._version(name, number)

    def run_of(self, name: str, number: int) -> str | None:
        """The run of a version; None if there is no such version."""
        try:
            with self.translated_errors(missing=f"{name} has no version {number}"):
                return _run_id(self.client.get_model_version(name, str(number)))
        except ModelNotFound:
            return None

    def alias(self, name: str, alias: str) -> int | None:
        """The number of the version that has an alias; None if no version has it."""
        try:
            with self.translated_errors(missing=alias):
                return int(self.client.get_model_version_by_alias(name, alias).version)
        except ModelNotFound:
            return None

    def set_alias(self, name: str, alias: str, number: int | None) -> None:
        """Set an alias, or remove it if `number` is None."""
        with self.translated_errors():
            if number is not None:
                self.client.set_registered_model_alias(name, alias, str(number))
            else:
                self.client.delete_registered_model_alias(name, alias)

    def staged(self, name: str) -> set[int]:
        """The versions in the stage Production: usually one, since MLflow moves stages without a lock."""
        with self.translated_errors():
            return {int(v.version) for v in self._search(f"name = '{name}'") if v.current_stage == STAGE}

    def set_stage(self, name: str, number: int, stage: str) -> None:
        with self.translated_errors(), warnings.catch_warnings():
            # Deprecated in favour of aliases; kept for clients that load models:/name/Production.
            warnings.simplefilter("ignore", FutureWarning)
            self.client.transition_model_version_stage(name, str(number), stage)

    @contextmanager
    def files(self, version: ModelVersion) -> Iterator[Path]:
        """A copy of a version's files, removed after the block."""
        with tempfile.TemporaryDirectory(prefix="dosel-model-") as folder:
            with self.translated_errors():
                # By this client: `models:/name/version` would be resolved by the process's default server.
                uri = self.client.get_model_version_download_uri(version.name, str(version.version))
                path = download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=self.uri)
            yield Path(path)

    def add_file(self, version: ModelVersion, name: str, content: bytes) -> None:
        """Add a file to a version's files, or replace it."""
        with tempfile.TemporaryDirectory(prefix="dosel-model-") as folder, self.translated_errors():
            file = Path(folder) / name
            file.write_bytes(content)
            uri = self.client.get_model_version_download_uri(version.name, str(version.version))
            get_artifact_repository(uri, tracking_uri=self.uri).log_artifact(str(file))

    def tag(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version, for readers of MLflow."""
        with self.translated_errors():
            for name, value in tags.items():
                self.client.set_model_version_tag(version.name, str(version.version), name, value)

    def tag_run(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version's run, if it has one."""
        with self.translated_errors():
            for name, value in tags.items() if self._run(version.run_id) else ():
                self.client.set_tag(version.run_id, name, value)

    def note_run(self, run_id: str, text: str) -> None:
        """Put a text at the end of a run's description, unless it is there."""
        with self.translated_errors():
            before = self.client.get_run(run_id).data.tags.get(MLFLOW_RUN_NOTE, "")
            if text not in before:
                self.client.set_tag(run_id, MLFLOW_RUN_NOTE, f"{before}\n\n{text}".strip())

    def note(self, version: ModelVersion, tags: Mapping[str, str], metrics: Mapping[str, float], text: str) -> None:
        """Write tags and metrics to a version's run, if it has one, and `text` to the version's description."""
        with self.translated_errors():
            self.client.update_model_version(version.name, str(version.version), description=text)
            for name, score in metrics.items() if self._run(version.run_id) else ():
                self.client.log_metric(version.run_id, name, score)
        self.tag_run(version, tags)

    def write_report(self, version: ModelVersion, report: Mapping[str, Any]) -> None:
        with self.translated_errors():
            if self._run(version.run_id):
                self.client.log_dict(version.run_id, dict(report), REPORT)

    def write_card(self, version: ModelVersion, text: str) -> None:
        with self.translated_errors():
            if self._run(version.run_id):
                self.client.log_text(version.run_id, text, CARD)

    def referenced(self) -> tuple[set[str], set[str]]:
        """The runs and the logged models that any registered version references."""
        with self.translated_errors():
            versions = self._search("")
        models = {str(v.model_id) for v in versions if v.model_id}
        models |= {str(v.source).removeprefix("models:/") for v in versions if str(v.source).startswith("models:/")}
        return {str(v.run_id) for v in versions if v.run_id}, models

    def is_registered(self, run_id: str) -> bool:
        _check_run_id(run_id)
        with self.translated_errors():
            return bool(self.client.search_model_versions(f"run_id = '{run_id}'", max_results=1))

    def _search(self, wanted: str) -> list[MlflowVersion]:
        found: list[MlflowVersion] = []
        token = None
        while token != "":
            page = self.client.search_model_versions(wanted, page_token=token)
            found += page
            token = page.token or ""
        return found

    def _version(self, name: str, number: int) -> ModelVersion:
        version = self.client.get_model_version(name, str(number))
        return _version(version, self._run(_run_id(version)), version.aliases)

    def _run(self, run_id: str) -> Run | None:
        try:
            return self.client.get_run(run_id) if run_id else None
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                return None
            raise

    def _runs(self, ids: Iterable[str]) -> dict[str, Run]:
        """Runs by id, in one query; a text that is no run's id has none."""
        known = sorted({run_id for run_id in ids if run_id and is_run_id(run_id)})
        if not known:
            return {}
        experiments = [e.experiment_id for e in self.client.search_experiments(view_type=ViewType.ALL)]
        wanted = ", ".join(f"'{run_id}'" for run_id in known)
        found: dict[str, Run] = {}
        token = None
        while token != "":
            page = self.client.search_runs(
                experiments, f"attributes.run_id IN ({wanted})", ViewType.ALL, page_token=token
            )
            found |= {run.info.run_id: run for run in page}
            token = page.token or ""
        return found

    @contextmanager
    def translated_errors(self, missing: str = "") -> Iterator[None]:
        """Raise MLflow's exceptions as dosel's; `missing` is the message for a 404."""
        try:
            yield
        except MlflowException as error:
            if missing and error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise ModelNotFound(missing) from error
            if missing and "alias" in error.message and "not found" in error.message:
                raise ModelNotFound(missing) from error
            # MLflow's client wraps most exceptions of requests.
            if isinstance(error.__context__, requests.RequestException):
                raise self._unreachable(error.__context__) from error
            raise RegistryError(f"MLflow at {self.uri} refused: {error.message}") from error
        except requests.RequestException as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: requests.RequestException) -> RegistryError:
        return RegistryError(f"MLflow at {self.uri} cannot be reached ({error}); is it running?")


def _check_run_id(run_id: str) -> None:
    if not is_run_id(run_id):
        raise RegistryError(f"refused: {run_id[:64]!r} is not the id of a run (32 hexadecimal digits)")


def _run_id(version: MlflowVersion) -> str:
    """The version's run; "" where MLflow has a text that is no run's id."""
    return version.run_id if version.run_id and is_run_id(version.run_id) else ""


def _version(version: MlflowVersion, run: Run | None, aliases: Iterable[str]) -> ModelVersion:
    data = run.data if run else RunData()
    return ModelVersion(
        name=version.name,
        version=int(version.version),
        run_id=_run_id(version),
        created_at=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        stage=version.current_stage,
        aliases=tuple(sorted(aliases)),
        metrics=dict(data.metrics),
        params=dict(data.params),
        tags={name: value for name, value in data.tags.items() if name.startswith("dosel.")},
    )
