"""The tables, derived from the declarations.

Names, digests and categories compare byte for byte (`utf8mb4_bin`): MySQL's own default ignores case.
"""

from collections.abc import Mapping
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
    inspect,
)
from sqlalchemy.dialects.mysql import DATETIME, MEDIUMTEXT
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateColumn, CreateTable

from dosel.rows.text import SURPLUS
from dosel.usecases import Category, Feature, Number, UseCase

METADATA = MetaData()

_MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}
_MOMENT = DateTime().with_variant(DATETIME(fsp=6), "mysql", "mariadb")
"""UTC, without a time zone, to the microsecond."""

_LONG = Text().with_variant(MEDIUMTEXT, "mysql", "mariadb")
"""What may outgrow MySQL's TEXT, which ends at 65,535 bytes: JSON, and what a source sends."""

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
    # Nullable, since ledgers older than these columns are added to: see `add_missing_columns`.
    Column("kind", String(16)),
    Column("to_run", String(64)),
    Column("data_digest", String(64)),
    Column("manifest_digest", String(64)),
    Column("metrics_before", _LONG),
    Column("metrics_after", _LONG),
    Column("gate", _LONG),
    UniqueConstraint("model", "sequence"),
    **_MYSQL,
)

PROJECTIONS = Table(
    "projections",
    METADATA,
    Column("model", String(128), primary_key=True),
    Column("sequence", Integer, nullable=False),
    **_MYSQL,
)
"""Up to which entry of the ledger the aliases in MLflow were brought: what differs after that was moved outside."""

MANIFESTS = Table(
    "manifests",
    METADATA,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("version", Integer, nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("at", _MOMENT, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("files", _LONG, nullable=False),
    UniqueConstraint("model", "version", "run_id"),
    **_MYSQL,
)

NOTES = Table(
    "promotion_notes",
    METADATA,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("at", _MOMENT, nullable=False),
    Column("text", Text, nullable=False),
    **_MYSQL,
)
"""What went wrong around Production without moving it; `sequence` is the entry that was the last one then."""


@dataclass(frozen=True)
class UseCaseTables:
    """A use case's own tables. A row is named by its batch and its position in it.

    `raw` keeps each row as received, as text; what a row holds beyond the declared columns goes, as JSON,
    to `surplus`. `clean` holds accepted rows, typed, each once. `quarantine` says why the others are not.
    """

    raw: Table
    clean: Table
    quarantine: Table


_TYPES: Mapping[str, Any] = {
    "text": String(64),
    "number": Double,
    # Half the bytes of a Double, and no decimals to print and read on the way.
    "whole": Integer,
    "long": BigInteger,
}


@cache
def use_case_tables(use_case_name: str, columns: tuple[tuple[str, str, bool], ...]) -> UseCaseTables:
    """The tables of a use case, given its columns: name, kind, and whether a row may do without."""

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
        raw=table("raw", *(Column(name, _LONG) for name, _, _ in columns), Column(SURPLUS, _LONG)),
        clean=table(
            "clean",
            Column("row_key", BigInteger, nullable=False, unique=True),
            *(Column(name, _TYPES[kind], nullable=optional) for name, kind, optional in columns),
        ),
        quarantine=table("quarantine", Column("reason", Text, nullable=False)),
    )


def tables_of(use_case: UseCase) -> UseCaseTables:
    kinds = ((feature.name, _kind(feature), feature.optional) for feature in use_case.features)
    return use_case_tables(use_case.name, (*kinds, (use_case.target.name, "whole", False)))


def _kind(feature: Feature) -> str:
    match feature:
        case Category():
            return "text"
        case Number(integer=True, minimum=low, maximum=high):
            return "whole" if max(-low, high) < 2**31 else "long"
        case _:
            return "number"


def create(connection: Connection, *tables: Table) -> None:
    """Creates what is missing; several processes may do so at once."""
    for table in tables:
        connection.execute(CreateTable(table, if_not_exists=True))


def add_missing_columns(connection: Connection, table: Table) -> None:
    """Gives a table that an earlier version made the columns it lacks, empty; several processes may do so at once."""
    there = {column["name"] for column in inspect(connection).get_columns(table.name)}
    for column in table.columns:
        if column.name in there:
            continue
        declared = CreateColumn(column).compile(dialect=connection.dialect)
        try:
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {declared}")
        except OperationalError:
            if column.name not in {c["name"] for c in inspect(connection).get_columns(table.name)}:
                raise
