"""The tables, derived from the declarations.

Names, digests and categories compare byte for byte (`utf8mb4_bin`): MySQL's own default ignores case.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Double,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.mysql import DATETIME
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateTable

from dosel.usecases import UseCase

METADATA = MetaData()

_MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}
_MOMENT = DateTime().with_variant(DATETIME(fsp=6), "mysql", "mariadb")
"""UTC, without a time zone, to the microsecond."""

_ID = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up by itself only in a column whose type is exactly INTEGER."""

BATCHES = Table(
    "batches",
    METADATA,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("use_case", String(64), nullable=False),
    Column("stream", String(64), nullable=False),
    Column("epoch", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("source", String(255), nullable=False),
    Column("received_at", _MOMENT, nullable=False),
    Column("rows_received", Integer, nullable=False),
    Column("rows_clean", Integer, nullable=False),
    Column("rows_refused", Integer, nullable=False),
    Column("rows_duplicate", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    UniqueConstraint("use_case", "stream", "epoch", "number"),
    **_MYSQL,
)

WRITERS = Table(
    "writers",
    METADATA,
    Column("use_case", String(64), primary_key=True),
    **_MYSQL,
)
"""A row a use case, locked by whoever stores a batch: what is a duplicate is decided by one writer at a time."""

PREDICTIONS = Table(
    "predictions",
    METADATA,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("request_id", String(64), nullable=False),
    Column("at", _MOMENT, nullable=False, index=True),
    Column("use_case", String(64), nullable=False),
    Column("model", String(128), nullable=False),
    Column("version", Integer, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("asked", Text, nullable=False),
    Column("answered", Text, nullable=False),
    **_MYSQL,
)

PROMOTIONS = Table(
    "promotions",
    METADATA,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("from_version", Integer),
    Column("to_version", Integer, nullable=False),
    Column("at", _MOMENT, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    UniqueConstraint("model", "sequence"),
    **_MYSQL,
)


@dataclass(frozen=True)
class UseCaseTables:
    """A use case's own tables. A row is named by its batch and its position in it.

    `raw` keeps each row as received, as text; what a row holds beyond the declared columns goes, as JSON,
    to `surplus`. `clean` holds accepted rows, typed, each once. `quarantine` says why the others are not.
    """

    raw: Table
    clean: Table
    quarantine: Table


@cache
def use_case_tables(use_case_name: str, columns: tuple[tuple[str, bool], ...]) -> UseCaseTables:
    """The tables of a use case, given its columns: name, and whether it is text."""

    def table(suffix: str, *own: Column[Any] | UniqueConstraint) -> Table:
        return Table(
            f"{use_case_name}_{suffix}",
            METADATA,
            Column("batch_id", _ID, primary_key=True, autoincrement=False),
            Column("row_no", Integer, primary_key=True, autoincrement=False),
            *own,
            **_MYSQL,
        )

    return UseCaseTables(
        raw=table("raw", *(Column(name, Text) for name, _ in columns), Column("surplus", Text)),
        clean=table(
            "clean",
            Column("row_key", BigInteger, nullable=False, unique=True),
            *(Column(name, String(64) if text else Double, nullable=False) for name, text in columns),
        ),
        quarantine=table("quarantine", Column("reason", Text, nullable=False)),
    )


def tables_of(use_case: UseCase) -> UseCaseTables:
    texts = {category.name for category in use_case.categories}
    return use_case_tables(use_case.name, tuple((name, name in texts) for name in use_case.columns))


def create(connection: Connection, *tables: Table) -> None:
    """Creates what is missing; several processes may do so at once."""
    for table in tables:
        connection.execute(CreateTable(table, if_not_exists=True))
