"""MLflow stores of each supported kind, which can be emptied, saved and restored quickly."""

import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import boto3
from mlflow import MlflowClient
from sqlalchemy import Connection, create_engine, inspect

from dosel.embedded.local_databases import Database
from dosel.embedded.local_servers import Minio
from dosel.sources.lake import create_bucket
from dosel.usecases import ALL

BUCKET = "stores"


class MlflowStore(Protocol):
    environment: Mapping[str, str]
    """What a client of it must be started with."""

    def fresh(self, folder: Path) -> str:
        """The address of an empty store with the use cases' experiments."""

    def keep(self, uri: str) -> str:
        """Save the contents of the store, and return the name of the copy."""

    def restored(self, kept: str, folder: Path) -> str:
        """The address of a store with the saved contents."""


def make_experiments(uri: str, artifacts: str) -> None:
    """Create the experiment of every use case with an explicit artifact location.

    Without a server, MLflow would write artifacts into the working directory.
    """
    for use_case in ALL:
        MlflowClient(uri).create_experiment(use_case.experiment, f"{artifacts}/{use_case.name}")


class SqliteAndFolder:
    """A store whose database and artifacts are files of one test."""

    environment: Mapping[str, str] = {}

    def __init__(self, empty: Path) -> None:
        self._empty = empty

    def fresh(self, folder: Path) -> str:
        uri = f"sqlite:///{shutil.copy(self._empty, folder / 'mlflow.db')}"
        make_experiments(uri, str(folder / "artifacts"))
        return uri

    def keep(self, uri: str) -> str:
        return uri.removeprefix("sqlite:///")

    def restored(self, kept: str, folder: Path) -> str:
        copy = folder / "mlflow.db"
        copy_database(Path(kept), copy)
        return f"sqlite:///{copy}"


def copy_database(file: Path, copy: Path) -> None:
    """Copy a SQLite database, also over an open one."""
    with closing(sqlite3.connect(file)) as original, closing(sqlite3.connect(copy)) as target:
        original.backup(target)


KEEP_ZERO = "SET sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')"
"""For copies: MLflow's default experiment has the id 0, for which the server would otherwise take the next number."""


class DatabaseAndMinio:
    """A store in one schema whose rows are replaced, since MLflow needs seconds to create its tables."""

    def __init__(self, database: Database, minio: Minio) -> None:
        self._uri = database.url("mlflow", "mysql+pymysql")
        self._engine = create_engine(database.url(dialect="mysql+pymysql"))
        self.environment = minio.settings | {"MLFLOW_S3_ENDPOINT_URL": minio.url}
        create_bucket(s3(minio), BUCKET)
        with self._engine.begin() as connection:
            connection.exec_driver_sql("CREATE DATABASE mlflow")
        MlflowClient(self._uri).search_experiments()
        self._tables = inspect(self._engine).get_table_names("mlflow")
        self._empty = self.keep(self._uri)

    def fresh(self, folder: Path) -> str:
        uri = self.restored(self._empty, folder)
        make_experiments(uri, f"s3://{BUCKET}/{uuid4().hex}")
        return uri

    def keep(self, uri: str) -> str:
        kept = f"kept_{uuid4().hex}"
        with self._engine.begin() as connection:
            connection.exec_driver_sql(KEEP_ZERO)
            connection.exec_driver_sql(f"CREATE DATABASE {kept}")
            for table in self._with_rows(connection, "mlflow"):
                connection.exec_driver_sql(f"CREATE TABLE {kept}.{table} LIKE mlflow.{table}")
                connection.exec_driver_sql(f"INSERT INTO {kept}.{table} SELECT * FROM mlflow.{table}")
        return kept

    def restored(self, kept: str, folder: Path) -> str:
        with self._engine.begin() as connection:
            connection.exec_driver_sql(KEEP_ZERO)
            connection.exec_driver_sql("SET foreign_key_checks = 0")
            for table in self._with_rows(connection, "mlflow"):
                connection.exec_driver_sql(f"DELETE FROM mlflow.{table}")
            for table in inspect(connection).get_table_names(kept):
                connection.exec_driver_sql(f"INSERT INTO mlflow.{table} SELECT * FROM {kept}.{table}")
            connection.exec_driver_sql("SET foreign_key_checks = 1")
        return self._uri

    def _with_rows(self, connection: Connection, schema: str) -> list[str]:
        """The tables that have rows: about a dozen of MLflow's sixty."""
        looks = (f"(SELECT '{name}' FROM {schema}.{name} LIMIT 1)" for name in self._tables)
        return [str(row[0]) for row in connection.exec_driver_sql(" UNION ALL ".join(looks))]


def s3(minio: Minio) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=minio.url,
        aws_access_key_id=minio.settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=minio.settings["AWS_SECRET_ACCESS_KEY"],
    )
