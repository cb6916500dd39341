"""Real stores: each supported kind of data store, and an MLflow store with trained models."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pytest
from sqlalchemy import Engine

from dosel.db.engine import connect
from dosel.pipeline import Pipeline
from dosel.quality import check
from dosel.settings import Settings
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore
from dosel.warehouse.records import BatchRecord
from tests.integration.stores import DatabaseAndMinio, MlflowStore, SqliteAndFolder
from tests.integration.worlds import FAMILIES, Deliveries, Trained, World, batch

Received = Callable[..., list[list[str]]]
ROWS = 400

Make = Callable[[pytest.FixtureRequest], Any]

WAREHOUSES: dict[str, Make] = {
    "files": lambda request: f"sqlite:///{request.getfixturevalue('tmp_path') / 'warehouse.db'}",
    "servers": lambda request: request.getfixturevalue("schema"),
}
"""The URL of an empty data store of each kind, for one test."""

MLFLOWS: dict[str, Make] = {
    "files": lambda request: SqliteAndFolder(request.getfixturevalue("empty_mlflow")),
    "servers": lambda request: DatabaseAndMinio(request.getfixturevalue("database"), request.getfixturevalue("minio")),
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests on servers that are not about storage, which only `make soak-all` runs."""
    for item in items:
        if "[servers" in item.nodeid and not item.get_closest_marker("storage"):
            item.add_marker(pytest.mark.soak)


@pytest.fixture(scope="session", params=["files", "servers"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of stores: SQLite and a folder, or a database server and MinIO."""
    return str(request.param)


@pytest.fixture
def warehouse_url(kind: str, request: pytest.FixtureRequest) -> str:
    return str(WAREHOUSES[kind](request))


@pytest.fixture(scope="session")
def mlflow_store(kind: str, request: pytest.FixtureRequest) -> MlflowStore:
    store: MlflowStore = MLFLOWS[kind](request)
    return store


@pytest.fixture
def tracking_uri(
    mlflow_store: MlflowStore, tmp_path: Path, bare_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A real MLflow store with the use case's experiment and no runs."""
    set_environment(monkeypatch, mlflow_store)
    monkeypatch.chdir(tmp_path)
    uri = mlflow_store.fresh(tmp_path)
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(None)


def set_environment(patch: pytest.MonkeyPatch, store: MlflowStore) -> None:
    for name, value in store.environment.items():
        patch.setenv(name, value)


@pytest.fixture
def engine(warehouse_url: str) -> Iterator[Engine]:
    engine = connect(warehouse_url)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> Callable[..., BatchRecord | None]:
    """A function that checks rows and stores them as a batch."""

    def put(rows: Sequence[Sequence[Any]], number: int = 1, epoch: str = "e1") -> BatchRecord | None:
        checked = check(COVERTYPE, rows, "uci")
        return BatchStore(engine, COVERTYPE).store(batch(rows, number, epoch), checked.accepted, checked.refused)

    return put


@pytest.fixture(scope="session")
def trained(mlflow_store: MlflowStore, tmp_path_factory: pytest.TempPathFactory, received: Received) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    trainings, runs, manifests = {}, {}, []
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        set_environment(patched, mlflow_store)
        uri = mlflow_store.fresh(folder)
        for name, use_case in FAMILIES.items():
            pipeline = Pipeline(use_case, Settings(home=folder, tracking_uri=uri, seed=1, jobs=1))
            pipeline.ingest(Deliveries(batch(received(ROWS))))
            trainings[name] = pipeline.train()
            [runs[name]] = pipeline.registry.store.compared(trainings[name]).values()
            manifest = pipeline.registry.ledger.attested(COVERTYPE.model_name, runs[name])
            assert manifest is not None
            manifests.append(manifest)
    return Trained(mlflow_store.keep(uri), trainings, runs, manifests)


@pytest.fixture(scope="session")
def states(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for states of worlds; see `World.prepared`."""
    return tmp_path_factory.mktemp("states")


@pytest.fixture
def world(
    trained: Trained,
    states: Path,
    mlflow_store: MlflowStore,
    warehouse_url: str,
    received: Received,
    tmp_path: Path,
    bare_environment: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    monkeypatch.chdir(tmp_path)
    set_environment(monkeypatch, mlflow_store)
    uri = mlflow_store.restored(trained.kept, tmp_path)
    settings = Settings(home=tmp_path, tracking_uri=uri, warehouse_url=warehouse_url, seed=1, jobs=1)
    mlflow.set_tracking_uri(uri)
    yield World(settings, received(ROWS), trained, states)
    mlflow.set_tracking_uri(None)
