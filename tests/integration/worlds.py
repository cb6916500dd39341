"""Building blocks of integration tests: deliveries, small searches and an installation with trained models."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.artifacts import load_dict

from dosel.pipeline import Pipeline
from dosel.registry.manifests import Manifest
from dosel.registry.projection import PREVIOUS, PRODUCTION
from dosel.registry.store import REPORT, ModelVersion
from dosel.settings import Settings
from dosel.sources.base import Batch
from dosel.usecases import Family, Gate, UseCase
from dosel.usecases.covertype import COVERTYPE
from tests.integration.stores import copy_database


def batch(rows: Sequence[Sequence[Any]], number: int = 1, epoch: str = "e1", coding: str = "uci") -> Batch:
    return Batch("http://data.test/data", "group 6", epoch, number, rows, coding)


class Deliveries:
    """A source that delivers these batches one by one."""

    def __init__(self, *batches: Batch | Exception) -> None:
        self.left = list(batches)

    def next_batch(self) -> Batch | None:
        if not self.left:
            return None
        delivery = self.left.pop(0)
        if isinstance(delivery, Exception):
            raise delivery
        return delivery


LENIENT = Gate(min_gain=0.001, tolerance=0.2, max_class_drop=1.0)
"""A gate that lets a better model pass although there are few held-out rows."""


def searching(**grid: Sequence[Any]) -> UseCase:
    """Covertype with one small search, whose parameters decide the quality of the model."""
    forest = COVERTYPE.families[0].build
    return dataclasses.replace(COVERTYPE, families=(Family("random_forest", forest, grid),), gate=LENIENT)


FAMILIES: Mapping[str, UseCase] = {
    "poor": searching(n_estimators=(1,), max_depth=(1,)),
    "fair": searching(n_estimators=(5,), max_depth=(3, 2)),
    "good": searching(n_estimators=(30,), max_depth=(12,)),
}
"""Trained on the same rows, each of these searches gives a better model than the one before."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """The contents of an MLflow store after each family was trained on the same rows.

    `trainings` are the runs of comparisons, `runs` those of models, `manifests` the manifests in the ledger.
    """

    kept: str
    trainings: Mapping[str, str]
    runs: Mapping[str, str]
    manifests: Sequence[Manifest]


def read_report(world: "World", version: ModelVersion) -> Any:
    """The gate's report in a version's run; None without one."""
    if REPORT not in {file.path for file in world.client.list_artifacts(version.run_id)}:
        return None
    return load_dict(f"{world.client.get_run(version.run_id).info.artifact_uri}/{REPORT}")


class World:
    """An installation with rows in the data store and the families' runs in MLflow; no version is registered.

    `states` is a folder of the session, for copies of the databases.
    """

    def __init__(self, settings: Settings, rows: list[list[str]], trained: Trained, states: Path) -> None:
        self.settings = settings
        self._states = states
        self.rows = rows
        self.trainings = trained.trainings
        self.runs = trained.runs
        self.name = COVERTYPE.model_name
        self.client = MlflowClient(settings.tracking_uri)
        self.prepared("rows", lambda: self._store(trained))

    def _store(self, trained: Trained) -> None:
        for manifest in trained.manifests:
            self.pipeline().registry.ledger.record_manifest(manifest)
        self.pipeline().ingest(Deliveries(batch(self.rows)))

    def prepared(self, state: str, make: Callable[[], object]) -> None:
        """Bring a new world to a state; with files, it is built once per session and its databases are copied."""
        urls = (self.settings.tracking_uri, self.settings.warehouse_url)
        databases = [Path(url.removeprefix("sqlite:///")) for url in urls if url.startswith("sqlite")]
        kept = self._states / state
        if databases and kept.exists():
            for database in databases:
                copy_database(kept / database.name, database)
            return
        make()
        half = self._states / f"half {state}"
        half.mkdir()
        for database in databases:
            copy_database(database, half / database.name)
        half.rename(kept)

    def entered(self, *families: str) -> None:
        """Register these families' models as versions 1, 2, … of a new world, and let the gate judge each."""
        self.prepared(f"entered {' '.join(families)}", lambda: [self.enter(family) for family in families])

    def pipeline(self, family: str = "fair") -> Pipeline:
        return Pipeline(FAMILIES[family], self.settings)

    def register(self, family: str) -> int:
        return self.pipeline(family).register(self.trainings[family])

    def enter(self, family: str) -> int:
        """Register a family's model and let the gate judge it."""
        number = self.register(family)
        self.pipeline(family).challenge(number, "a test")
        return number

    def aliases(self) -> dict[str, int]:
        found = self.client.get_registered_model(self.name).aliases
        return {alias: int(version) for alias, version in found.items() if alias in (PRODUCTION, PREVIOUS)}

    def stages(self) -> dict[int, str]:
        return {v.version: v.stage for v in self.pipeline().registry.versions(self.name)}
