"""Real stores: a warehouse of each kind that is supported, and an MLflow store with models that were trained."""

import atexit
import contextlib
import functools
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from sqlalchemy import Engine

from benchmarks import mariadb
from dosel.pipeline import Pipeline
from dosel.quality import check
from dosel.settings import Settings
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse import BatchRecord, BatchStore, connect
from tests.integration.worlds import FAMILIES, Deliveries, Trained, World, batch

Received = Callable[..., list[list[str]]]
ROWS = 400


@functools.cache
def _mariadb() -> mariadb.Server:
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(mariadb.running())


def _schema(folder: Path) -> str:
    """An empty schema on a server that all tests share."""
    server = _mariadb()
    name = f"t{zlib.crc32(str(folder).encode())}"
    with server.connect() as connection:
        connection.cursor().execute(f"CREATE DATABASE {name}")
    return server.url.replace(mariadb.SCHEMA, name)


WAREHOUSES: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder / 'warehouse.db'}",
    "mariadb": _schema,
}
"""Each kind of warehouse: makes an empty one, given a folder of the test's own, and returns its URL."""


@pytest.fixture(params=WAREHOUSES)
def warehouse_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return WAREHOUSES[request.param](tmp_path)


@pytest.fixture
def engine(warehouse_url: str) -> Iterator[Engine]:
    engine = connect(warehouse_url)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> Callable[..., BatchRecord | None]:
    """Checks rows and stores them as a batch."""

    def put(rows: Sequence[Sequence[Any]], number: int = 1, epoch: str = "e1") -> BatchRecord | None:
        checked = check(COVERTYPE, rows, "uci")
        return BatchStore(engine, COVERTYPE).store(batch(rows, number, epoch), checked.accepted, checked.refused)

    return put


@pytest.fixture(scope="session")
def trained(empty_mlflow: Path, tmp_path_factory: pytest.TempPathFactory, received: Received) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    database = Path(shutil.copy(empty_mlflow, folder / "mlflow.db"))
    uri = f"sqlite:///{database}"
    MlflowClient(uri).create_experiment(COVERTYPE.experiment, str(folder / "artifacts"))
    runs = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for name, use_case in FAMILIES.items():
            pipeline = Pipeline(use_case, Settings(home=folder, tracking_uri=uri, seed=1, jobs=1))
            pipeline.ingest(Deliveries(batch(received(ROWS))))
            runs[name] = pipeline.train()
    return Trained(database, runs)


@pytest.fixture
def world(
    trained: Trained,
    warehouse_url: str,
    received: Received,
    tmp_path: Path,
    bare_environment: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "mlflow.db"
    with sqlite3.connect(trained.database) as original, sqlite3.connect(copy) as target:
        original.backup(target)
    uri = f"sqlite:///{copy}"
    settings = Settings(home=tmp_path, tracking_uri=uri, warehouse_url=warehouse_url, seed=1, jobs=1)
    made = World(settings, received(ROWS), trained.runs)
    made.pipeline().ingest(Deliveries(batch(made.rows)))
    mlflow.set_tracking_uri(uri)
    yield made
    mlflow.set_tracking_uri(None)
