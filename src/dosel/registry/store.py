"""Calls to MLflow's model registry: versions, aliases, stages and files."""

import json
import logging
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dosel.errors import ModelNotFound, RegistryError
from dosel.model.tags import FAMILIES, is_run_id, read_runs
from dosel.registry import mlflow_calls
from dosel.registry.mlflow_calls import (
    EXISTS,
    MISSING,
    RUN_NOTE,
    CheckFiles,
    Refused,
    Run,
    TooLarge,
    Unreachable,
    Version,
)

STAGE = "Production"
ARCHIVED = "Archived"

REPORT = "gate.json"
"""Artifact of a run: the gate's report on its version."""

CARD = "model_card.md"
"""Artifact of a run: the model card of its version."""


LEFT_OUT_SECONDS = 600.0
"""How long a run that was too large to read is not asked for again."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelVersion:
    """A registered version, with metrics, parameters and `dosel.` tags.

    Attributes:
        run_id: "" if MLflow names no run, or a text that is no run's id.
        attested: metrics, parameters and tags are the ledger's. Otherwise they are MLflow's, and every user of MLflow
            can edit them.
        experiment_id: of the run, as MLflow has it; "" if MLflow does not say.
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
    experiment_id: str = ""


@dataclass(frozen=True)
class Registered:
    """What MLflow has of a model.

    Attributes:
        aliases: the numbers of their versions.
        runs: the run of each version, by number; "" for none.
        staged: the versions in the stage Production: usually one, since MLflow moves stages without a lock.
    """

    aliases: Mapping[str, int]
    runs: Mapping[int, str]
    staged: frozenset[int]


class Store:
    """MLflow at `uri`. Every call may raise RegistryError: MLflow cannot be reached, or refused."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._mlflow = mlflow_calls.connect(uri)
        self._too_large = dict[str, float]()
        """When each run was found to be too large."""

    def create_version(self, name: str, description: str, run_id: str) -> ModelVersion:
        """Create a version of the model that a run logged; if there is one, return it.

        Args:
            description: of the registered model.
        """
        _check_run_id(run_id)
        with self.translated_errors():
            models = self._mlflow.run(run_id).models
            if not models:
                raise RegistryError(f"run {run_id} logged no model; train again")
            source = f"models:/{models[0]}"
            # Compare the source too: in MLflow's interface, a version may name any run and any files.
            found = self._mlflow.search_versions(f"name = '{name}' AND run_id = '{run_id}'")
            if known := [v.version for v in found if v.source == source]:
                return self._version(name, min(known))
            try:
                self._mlflow.create_model(name, description)
            except Refused as error:
                if error.code != EXISTS:
                    raise
                # The declaration may have changed since.
                self._mlflow.describe_model(name, description)
            return self._version(name, self._mlflow.create_version(name, source, run_id, models[0]))

    def compared(self, run_id: str) -> dict[str, str]:
        """A comparison's runs by family.

        Raises:
            RegistryError: the run is not a comparison.
        """
        _check_run_id(run_id)
        with self.translated_errors():
            runs = read_runs(self._mlflow.run(run_id).tags.get(FAMILIES, ""))
        if not runs:
            raise RegistryError(f"run {run_id} compares no models; train again")
        return runs

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, newest first; none if it is not registered."""
        with self.translated_errors():
            found = sorted(self._mlflow.search_versions(f"name = '{name}'"), key=lambda v: v.version, reverse=True)
            if not found:
                return []
            # MLflow's search leaves aliases out; the registered model has them.
            aliases, runs = self._mlflow.aliases(name), self._runs(v.run_id for v in found)
            return [_version(v, runs.get(v.run_id), [a for a, n in aliases.items() if n == v.version]) for v in found]

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
                return _run_id(self._mlflow.version(name, number))
        except ModelNotFound:
            return None

    def alias(self, name: str, alias: str) -> int | None:
        """The number of the version that has an alias; None if no version has it."""
        with self.translated_errors():
            return self._mlflow.aliased(name, alias)

    def set_alias(self, name: str, alias: str, number: int | None) -> None:
        """Set an alias, or remove it if `number` is None."""
        with self.translated_errors():
            self._mlflow.set_alias(name, alias, number)

    def registered(self, name: str) -> Registered:
        """What MLflow has of a model; nothing if it is not registered."""
        with self.translated_errors():
            found = self._mlflow.search_versions(f"name = '{name}'")
            # MLflow's search leaves aliases out; the registered model has them.
            aliases = self._mlflow.aliases(name) if found else {}
        staged = frozenset(v.version for v in found if v.current_stage == STAGE)
        return Registered(aliases, {v.version: _run_id(v) for v in found}, staged)

    def set_stage(self, name: str, number: int, stage: str) -> None:
        with self.translated_errors():
            self._mlflow.set_stage(name, number, stage)

    @contextmanager
    def files(self, version: ModelVersion, check: CheckFiles | None = None) -> Iterator[Path]:
        """A copy of a version's files, removed after the block.

        Args:
            check: raises an error if the files are not those wanted; called before any file is fetched.
        """
        with tempfile.TemporaryDirectory(prefix="dosel-model-") as folder:
            with self.translated_errors():
                path = self._mlflow.download(version.name, version.version, Path(folder), check)
            yield path

    def add_file(self, version: ModelVersion, name: str, content: bytes) -> None:
        """Add a file to a version's files, or replace it."""
        with self.translated_errors():
            self._mlflow.add_file(version.name, version.version, name, content)

    def tag(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version, for readers of MLflow."""
        with self.translated_errors():
            for name, value in tags.items():
                self._mlflow.tag_version(version.name, version.version, name, value)

    def tag_run(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version's run, if it has one."""
        with self.translated_errors():
            for name, value in tags.items() if self._run(version.run_id) else ():
                self._mlflow.tag_run(version.run_id, name, value)

    def note_run(self, run_id: str, text: str) -> None:
        """Put a text at the end of a run's description, unless it is there."""
        with self.translated_errors():
            before = self._mlflow.run(run_id).tags.get(RUN_NOTE, "")
            if text not in before:
                self._mlflow.tag_run(run_id, RUN_NOTE, f"{before}\n\n{text}".strip())

    def note(self, version: ModelVersion, tags: Mapping[str, str], metrics: Mapping[str, float], text: str) -> None:
        """Write tags and metrics to a version's run, if it has one, and `text` to the version's description."""
        with self.translated_errors():
            self._mlflow.describe_version(version.name, version.version, text)
            for name, score in metrics.items() if self._run(version.run_id) else ():
                self._mlflow.log_metric(version.run_id, name, score)
        self.tag_run(version, tags)

    def write_report(self, version: ModelVersion, report: Mapping[str, Any]) -> None:
        self._write(version, REPORT, json.dumps(dict(report), indent=2, default=str))

    def write_card(self, version: ModelVersion, text: str) -> None:
        self._write(version, CARD, text)

    def referenced(self) -> tuple[set[str], set[str]]:
        """The runs and the logged models that any registered version references."""
        with self.translated_errors():
            versions = self._mlflow.search_versions("")
        models = {v.model_id for v in versions if v.model_id}
        models |= {v.source.removeprefix("models:/") for v in versions if v.source.startswith("models:/")}
        return {v.run_id for v in versions if v.run_id}, models

    def is_registered(self, run_id: str) -> bool:
        _check_run_id(run_id)
        with self.translated_errors():
            return bool(self._mlflow.search_versions(f"run_id = '{run_id}'", most=1))

    def _write(self, version: ModelVersion, name: str, text: str) -> None:
        with self.translated_errors():
            if self._run(version.run_id):
                self._mlflow.write_to_run(version.run_id, name, text)

    def _version(self, name: str, number: int) -> ModelVersion:
        version = self._mlflow.version(name, number)
        return _version(version, self._run(_run_id(version)), version.aliases)

    def _run(self, run_id: str) -> Run | None:
        """A run; None if there is none, or if somebody made it too large to read: the ledger has what matters."""
        if not run_id or self._is_too_large(run_id):
            return None
        try:
            return self._mlflow.run(run_id)
        except TooLarge as error:
            log.warning("MLflow's run %s is left out for %.0f s: %s", run_id, LEFT_OUT_SECONDS, error)
            self._too_large[run_id] = time.monotonic()
            return None
        except Refused as error:
            if error.code == MISSING:
                return None
            raise

    def _is_too_large(self, run_id: str) -> bool:
        """Whether the run was too large a short time ago: MLflow takes seconds for each such answer."""
        found = self._too_large.get(run_id)
        return found is not None and time.monotonic() - found < LEFT_OUT_SECONDS

    def _runs(self, ids: Iterable[str]) -> dict[str, Run]:
        """Runs by id, in one query; a text that is no run's id has none, nor has a run that is too large."""
        known = sorted({run_id for run_id in ids if is_run_id(run_id) and not self._is_too_large(run_id)})
        try:
            found = self._mlflow.runs(known) if known else []
        except TooLarge as error:
            log.warning("MLflow's runs are read one by one: %s", error)
            found = [run for run_id in known if (run := self._run(run_id)) is not None]
        return {run.id: run for run in found}

    @contextmanager
    def translated_errors(self, missing: str = "") -> Iterator[None]:
        """Raise MLflow's exceptions as dosel's; `missing` is the message for a 404."""
        try:
            yield
        except Refused as error:
            if missing and error.code == MISSING:
                raise ModelNotFound(missing) from error
            raise RegistryError(f"MLflow at {self.uri} refused: {error}") from error
        except Unreachable as error:
            raise RegistryError(f"MLflow at {self.uri} cannot be reached ({error}); is it running?") from error


def _check_run_id(run_id: str) -> None:
    if not is_run_id(run_id):
        raise RegistryError(f"refused: {run_id[:64]!r} is not the id of a run (32 hexadecimal digits)")


def _run_id(version: Version) -> str:
    """The version's run; "" where MLflow has a text that is no run's id."""
    return version.run_id if is_run_id(version.run_id) else ""


def _version(version: Version, run: Run | None, aliases: Iterable[str]) -> ModelVersion:
    return ModelVersion(
        name=version.name,
        version=version.version,
        run_id=_run_id(version),
        created_at=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        stage=version.current_stage,
        aliases=tuple(sorted(aliases)),
        metrics=dict(run.metrics) if run else {},
        params=dict(run.params) if run else {},
        tags={name: value for name, value in run.tags.items() if name.startswith("dosel.")} if run else {},
        experiment_id=run.experiment if run else "",
    )
