"""Fixtures that several folders of tests share: a bare environment, generated rows, stores and servers."""

import fcntl
import gc
import logging
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache, wraps
from importlib import import_module
from inspect import unwrap
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pymysql
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, inspect
from xdist.scheduler import LoadScopeScheduling

from dosel.db.engine import connect
from dosel.db.migrations import migrate
from dosel.embedded.guard import guarded
from dosel.embedded.local_databases import DATABASES, Database, MySQL, database_kind
from dosel.embedded.local_servers import LocalServer, Minio
from dosel.errors import ProgramMissing
from dosel.usecases import Category, Number
from dosel.usecases.covertype import COVERTYPE

Rows = list[list[str]]
SETTINGS = ("DOSEL_", "MLFLOW_", "AIRFLOW", "DATA_API_", "API_PORT", "STREAMLIT_", "MIN_UPDATE_TIME")


FIRST = ("platform", "trained models on servers", "servers")
"""The longest groups of tests. They start first, so that short ones fill the workers' last minutes."""

ON_PLATFORM = ("test_page", "test_up", "test_views")
ON_SERVERS = ("test_mlflow_server", "test_mysql_differences", "test_services")
WITH_MODELS = ("test_attested", "test_cases", "test_events", "test_gc", "test_moving", "test_registry")
"""Modules whose tests on servers share trained models, which take long to prepare."""


def group(nodeid: str) -> str:
    """The group of a test: tests of one group run in one worker, since they share a platform, servers or models."""
    module = Path(nodeid.partition("::")[0])
    if module.stem in ON_PLATFORM:
        return "platform"
    if module.stem in ON_SERVERS or "[servers" in nodeid:
        return "trained models on servers" if module.stem in WITH_MODELS else "servers"
    return str(module)


class Groups(LoadScopeScheduling):
    """A scheduler that sends each group of tests to one worker."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return Groups(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """The number of cores plus one, since the tests of the platform mostly wait."""
    return (os.cpu_count() or 1) + 1


def pytest_report_header() -> str:
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = _database_kind(Path(folder))(Path(folder), os.environ).version
    except ProgramMissing as error:
        found = str(error)
    return f"database server of the tests: {found}"


def pytest_sessionstart() -> None:
    """Speed up collection and tests by excluding imported objects from garbage collection."""
    gc.set_threshold(50_000, 20, 20)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(group(item.nodeid), len(FIRST)))


@pytest.fixture(scope="session", autouse=True)
def no_stray_mlruns() -> Iterator[None]:
    """Check that MLflow wrote no files into the working directory instead of the test's store."""
    beside = Path(__file__).resolve().parent.parent / "mlruns"
    before = set(beside.glob("**/*"))
    yield
    assert set(beside.glob("**/*")) == before, f"tests wrote into {beside}"


@pytest.fixture(scope="session", autouse=True)
def keys_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sign with a key of the tests, the same on all workers, instead of the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(shared_folder(tmp_path_factory) / "settings"))
        yield


READ_ONCE = (
    ("mlflow.store.db.utils", "_get_latest_schema_revision"),
    ("streamlit.components.v2.manifest_scanner", "scan_component_manifests"),
)
"""What libraries read of their installation again and again: MLflow its migrations for each store, Streamlit all
packages for each script."""


@pytest.fixture(scope="session", autouse=True)
def installed_files_are_read_once() -> Iterator[None]:
    """Keep what libraries read of their installation, and of the system's certificates for each connection to MySQL."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in READ_ONCE:
            if module.partition(".")[0] in sys.modules:
                patch.setattr(f"{module}.{name}", cache(getattr(import_module(module), name)))
        context = pymysql.Connection._create_ssl_ctx
        shared = cache(lambda: context(None, {}))
        patch.setattr(
            pymysql.Connection, "_create_ssl_ctx", lambda self, asked: context(self, asked) if asked else shared()
        )
        yield


Statements = list[tuple[str, tuple[Any, ...]]]
"""SQL with its arguments."""


@pytest.fixture(scope="session", autouse=True)
def migrated_at_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give an empty database that this process migrates the tables of one that was migrated.

    The steps of five hundred migrations take two minutes of processor time. `real_migrations` has them carried out.
    """
    upgrade = command.upgrade
    statements = {"sqlite": _statements_of_sqlite(tmp_path_factory.mktemp("migrated") / "empty.db")}

    @wraps(upgrade)
    def copied(config: Config, revision: str) -> None:
        connection = config.attributes["connection"]
        database = "sqlite" if connection.dialect.name == "sqlite" else f"server at {connection.engine.url.port}"
        if inspect(connection).get_table_names():
            upgrade(config, revision)
        elif database in statements:
            for statement, arguments in statements[database]:
                connection.exec_driver_sql(statement, arguments)
        else:
            upgrade(config, revision)
            statements[database] = _statements_of_server(connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "upgrade", copied)
        yield


def _statements_of_sqlite(file: Path) -> Statements:
    """The statements that make a migrated database."""
    engine = connect(f"sqlite:///{file}")
    migrate(engine)
    engine.dispose()
    with closing(sqlite3.connect(file)) as database:
        return [(line, ()) for line in database.iterdump() if line not in {"BEGIN TRANSACTION;", "COMMIT;"}]


def _statements_of_server(connection: Connection) -> Statements:
    """The statements that make the tables of a migrated schema, with rows and triggers; none has a foreign key."""
    names = inspect(connection).get_table_names()
    tables = [(connection.exec_driver_sql(f"SHOW CREATE TABLE {name}").one()[1], ()) for name in names]
    rows = [(name, tuple(row)) for name in names for row in connection.exec_driver_sql(f"SELECT * FROM {name}")]
    triggers = [trigger for trigger, *_ in connection.exec_driver_sql("SHOW TRIGGERS")]
    refusals = [(connection.exec_driver_sql(f"SHOW CREATE TRIGGER {name}").one()[2], ()) for name in triggers]
    return [*tables, *((f"INSERT INTO {name} VALUES %s", (row,)) for name, row in rows), *refusals]


@pytest.fixture
def real_migrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Carry out each step of a migration."""
    monkeypatch.setattr(command, "upgrade", unwrap(command.upgrade))


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the caller's settings from the environment, and turn MLflow's telemetry off."""
    for name in os.environ:
        if name.startswith(SETTINGS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture
def server_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """The records that the API's process logs, whichever loggers earlier tests have configured."""
    for name in ("uvicorn", "uvicorn.error"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)
    caplog.set_level(logging.DEBUG, "uvicorn.error")
    return caplog


@pytest.fixture(scope="session")
def received() -> Callable[..., Rows]:
    """Make valid rows of covertype as text; the class follows from the elevation, so that models can learn it."""

    def make(count: int, seed: int = 0) -> Rows:
        rng = random.Random(seed)
        return [_row(rng) for _ in range(count)]

    return make


def _row(rng: random.Random) -> list[str]:
    values: list[str] = []
    for feature in COVERTYPE.features:
        match feature:
            case Category():
                values.append(rng.choice(feature.values))
            case Number():
                values.append(str(rng.randint(int(feature.minimum), int(feature.maximum))))
    elevation = int(values[0])
    return [*values, str(1 + min(6, (elevation - 1800) * 7 // 2200))]


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this test session, which all its workers share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create the folder if necessary, and hold it for one worker at a time."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new MLflow database; one worker creates it, since MLflow's migrations take seconds."""
    from mlflow import MlflowClient

    folder = shared_folder(tmp_path_factory) / "mlflow"
    made, file = folder / "half.db", folder / "empty.db"
    with locked(folder), pytest.MonkeyPatch.context() as patched:
        if not file.exists():
            patched.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
            MlflowClient(f"sqlite:///{made}").search_experiments()
            made.rename(file)
    return file


@pytest.fixture
def tracking_uri(
    empty_mlflow: Path, tmp_path: Path, bare_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A real MLflow store of the test's own, with the use case's experiment and no runs."""
    import mlflow
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{shutil.copy(empty_mlflow, tmp_path / 'mlflow.db')}"
    MlflowClient(uri).create_experiment(COVERTYPE.experiment, str(tmp_path / "artifacts"))
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the session's servers, which end with the session even if it is killed."""
    folder = tmp_path_factory.mktemp("servers")
    with guarded(folder):
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def database(servers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A real MySQL, or else MariaDB (TEST_DATABASE names one); each test creates a schema of its own."""
    shared = shared_folder(tmp_path_factory) / "database"

    def make(folder: Path) -> Database:
        server = _database_kind(folder)(folder, os.environ, lasting=False)
        # To fill a data folder takes MySQL two seconds of processor time: one worker does it for all.
        filled = shared / server.name
        with locked(shared):
            if filled.exists():
                shutil.copytree(filled, server.folder)
            else:
                server._prepare()
                shutil.copytree(server.folder, filled)
        return server

    yield from started(make, servers)


def _database_kind(folder: Path) -> type[Database]:
    asked = os.environ.get("TEST_DATABASE")
    return database_kind(folder, os.environ, [kind for kind in DATABASES if asked in (None, "", kind.name)])


@pytest.fixture
def mysql(database: Database) -> MySQL:
    """The server of the session, for behaviour that only MySQL has."""
    if not isinstance(database, MySQL):
        if os.environ.get("CI") and not os.environ.get("TEST_DATABASE"):
            pytest.fail("no mysqld of MySQL on PATH: .ci/services fetches one")
        pytest.skip("needs MySQL")
    return database


@pytest.fixture
def schema(database: Database) -> Iterator[str]:
    """The URL of a new schema with the server's collation, which ignores case."""
    name = f"test_{uuid4().hex}"
    server = create_engine(database.url(dialect="mysql+pymysql"))
    with server.begin() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield database.url(name)
    with server.begin() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name}")
    server.dispose()


@pytest.fixture(scope="session")
def minio(servers: Path) -> Iterator[Minio]:
    """A real MinIO without buckets."""
    yield from started(lambda folder: Minio(folder, os.environ, lasting=False), servers)


S = TypeVar("S", bound=LocalServer)


def started(kind: Callable[[Path], S], folder: Path) -> Iterator[S]:
    """A server until the session ends; without its program, CI fails, and tests elsewhere are skipped."""
    try:
        store = kind(folder)
    except ProgramMissing as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    store.start()
    yield store
    store.stop()


def until(condition: Callable[[], object], seconds: float) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.05)
