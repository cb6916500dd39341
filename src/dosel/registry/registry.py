"""Model versions and what is in Production.

The promotion ledger is the truth. The aliases `production` and `previous`, and the stage Production for
clients that still ask for it, are its projection, written by `Registry.project` and by nothing else.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode

from dosel import formats
from dosel.errors import ModelNotFound, RegistryError
from dosel.usecases import UseCase
from dosel.warehouse import Promotion, PromotionLedger

PRODUCTION = "production"
PREVIOUS = "previous"
STAGE = "Production"
ARCHIVED = "Archived"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelVersion:
    """A registered version, with what its run knows of it."""

    name: str
    version: int
    run_id: str
    created_at: datetime
    stage: str
    aliases: tuple[str, ...]
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]


class Registry:
    """MLflow's registry at `tracking_uri`, kept in step with the promotion ledger."""

    def __init__(self, tracking_uri: str, ledger: PromotionLedger) -> None:
        self._uri = tracking_uri
        self._ledger = ledger
        self._client = MlflowClient(tracking_uri)

    def register(self, use_case: UseCase, run_id: str) -> ModelVersion:
        """The version of the model that `run_id` logged; registered before, it is found again."""
        name = use_case.model_name
        with self._speaking():
            known = self._client.search_model_versions(f"name = '{name}' AND run_id = '{run_id}'")
            if known:
                return self._version(known[0])
            try:
                self._client.create_registered_model(name, description=use_case.summary)
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                    raise
            models = self._client.get_run(run_id).outputs.model_outputs
            if not models:
                raise RegistryError(f"run {run_id} logged no model; train again")
            created = self._client.create_model_version(
                name, source=f"models:/{models[0].model_id}", run_id=run_id, model_id=models[0].model_id
            )
            return self._version(created)

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, newest first; none if it is not registered."""
        with self._speaking():
            found = self._client.search_model_versions(f"name = '{name}'")
            ordered = sorted(found, key=lambda v: int(v.version), reverse=True)
            return [self._version(v) for v in ordered]

    def version(self, name: str, version: int) -> ModelVersion:
        """One version.

        Raises:
            ModelNotFound: there is none of that number.
        """
        with self._speaking(missing=f"{name} has no version {version}"):
            return self._version(self._client.get_model_version(name, str(version)))

    def production_number(self, name: str) -> int | None:
        """The number of the version in Production, for a cheap look; None while there is none."""
        try:
            with self._speaking(missing=f"{name} has nothing in Production"):
                return int(self._client.get_model_version_by_alias(name, PRODUCTION).version)
        except ModelNotFound:
            return None

    def production(self, name: str) -> ModelVersion | None:
        """What is in Production; None while nothing is."""
        number = self.production_number(name)
        return None if number is None else self.version(name, number)

    def load(self, version: ModelVersion) -> Any:
        """The fitted estimator of a version, read without running code from its files.

        Raises:
            UntrustedModel: it is not in a form that can be read so.
        """
        with tempfile.TemporaryDirectory(prefix="dosel-model-") as folder, self._speaking():
            # Asked of our own client: `models:/name/version` would be resolved by whatever server the process has set.
            uri = self._client.get_model_version_download_uri(version.name, str(version.version))
            path = download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=self._uri)
            return formats.read(Path(path))

    def promote(self, version: ModelVersion, actor: str, reason: str) -> Promotion:
        """Puts a version in Production: first the ledger, then its projection. Doing it again changes nothing."""
        entry = self._ledger.append(version.name, version.version, actor, reason)
        self.project(version.name)
        return entry

    def last_promotion(self, name: str) -> Promotion | None:
        """What the ledger says of Production: which version, since when and why; None while nothing is in it."""
        return self._ledger.last(name)

    def project(self, name: str) -> None:
        """Brings aliases and stages to what the ledger's last entry says. Idempotent."""
        last = self._ledger.last(name)
        if last is None:
            return
        with self._speaking():
            self._client.set_registered_model_alias(name, PRODUCTION, str(last.to_version))
            if last.from_version is not None:
                self._client.set_registered_model_alias(name, PREVIOUS, str(last.from_version))
            for version in self._client.search_model_versions(f"name = '{name}'"):
                entitled = int(version.version) == last.to_version
                if entitled and version.current_stage != STAGE:
                    self._set_stage(name, version.version, STAGE)
                elif not entitled and version.current_stage == STAGE:
                    self._set_stage(name, version.version, ARCHIVED)

    def note(self, version: ModelVersion, tags: Mapping[str, str], metrics: Mapping[str, float], text: str) -> None:
        """Writes what became of a version to its run, and in words to its description."""
        with self._speaking():
            for name, value in tags.items():
                self._client.set_tag(version.run_id, name, value)
            for name, score in metrics.items():
                self._client.log_metric(version.run_id, name, score)
            self._client.update_model_version(version.name, str(version.version), description=text)

    def _set_stage(self, name: str, version: str, stage: str) -> None:
        with warnings.catch_warnings():
            # Deprecated in favour of aliases; kept for the clients that load models:/name/Production.
            warnings.simplefilter("ignore", FutureWarning)
            self._client.transition_model_version_stage(name, version, stage)

    def _version(self, version: MlflowVersion) -> ModelVersion:
        run = self._client.get_run(version.run_id)
        # A search leaves the aliases out; only asking for the version itself gives them.
        aliases = self._client.get_model_version(version.name, version.version).aliases
        return ModelVersion(
            name=version.name,
            version=int(version.version),
            run_id=version.run_id,
            created_at=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
            stage=version.current_stage,
            aliases=tuple(sorted(aliases)),
            metrics=dict(run.data.metrics),
            params=dict(run.data.params),
            tags={name: value for name, value in run.data.tags.items() if name.startswith("dosel.")},
        )

    @contextmanager
    def _speaking(self, missing: str = "") -> Iterator[None]:
        """Turns what MLflow raises into our own errors; `missing` says what a 404 means here."""
        try:
            yield
        except MlflowException as error:
            if missing and error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise ModelNotFound(missing) from error
            if missing and "alias" in error.message and "not found" in error.message:
                raise ModelNotFound(missing) from error
            # What requests raises, MLflow's client mostly wraps.
            if isinstance(error.__context__, requests.RequestException):
                raise self._unreachable(error.__context__) from error
            raise RegistryError(f"MLflow at {self._uri} refused: {error.message}") from error
        except requests.RequestException as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: requests.RequestException) -> RegistryError:
        return RegistryError(f"MLflow at {self._uri} cannot be reached ({error}); is it running?")
