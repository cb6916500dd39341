"""The tables as they were before there were migrations. They were made when first needed: any may be missing."""

from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table, Text, UniqueConstraint

from dosel.db.migrations.steps import create_tables
from dosel.db.types import AUTO_ID, LONG_TEXT, MOMENT, MYSQL

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_tables(
        _table(
            "batches",
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("use_case", String(64), nullable=False),
            Column("stream", String(64), nullable=False),
            Column("epoch", String(64), nullable=False),
            Column("number", Integer, nullable=False),
            Column("source", String(255), nullable=False),
            Column("received_at", MOMENT, nullable=False),
            Column("rows_received", Integer, nullable=False),
            Column("rows_clean", Integer, nullable=False),
            Column("rows_refused", Integer, nullable=False),
            Column("rows_duplicate", Integer, nullable=False),
            Column("digest", String(64), nullable=False),
            UniqueConstraint("use_case", "stream", "epoch", "number"),
        ),
        _table("writers", Column("use_case", String(64), primary_key=True)),
        _table(
            "predictions",
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("request_id", String(64), nullable=False),
            Column("at", MOMENT, nullable=False),
            Column("use_case", String(64), nullable=False),
            Column("model", String(128), nullable=False),
            Column("version", Integer, nullable=False),
            Column("rows", Integer, nullable=False),
            Column("asked", Text, nullable=False),
            Column("answered", Text, nullable=False),
        ),
        _table(
            "promotions",
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("model", String(128), nullable=False),
            Column("sequence", Integer, nullable=False),
            Column("from_version", Integer),
            Column("to_version", Integer, nullable=False),
            Column("at", MOMENT, nullable=False),
            Column("actor", String(255), nullable=False),
            Column("reason", Text, nullable=False),
            UniqueConstraint("model", "sequence"),
        ),
        _table(
            "projections",
            Column("model", String(128), primary_key=True),
            Column("sequence", Integer, nullable=False),
        ),
        _table(
            "manifests",
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("model", String(128), nullable=False),
            Column("version", Integer, nullable=False),
            Column("run_id", String(64), nullable=False),
            Column("at", MOMENT, nullable=False),
            Column("digest", String(64), nullable=False),
            Column("files", LONG_TEXT, nullable=False),
            UniqueConstraint("model", "version", "run_id"),
        ),
        _table(
            "promotion_notes",
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("model", String(128), nullable=False),
            Column("sequence", Integer, nullable=False),
            Column("at", MOMENT, nullable=False),
            Column("text", Text, nullable=False),
        ),
    )


def _table(name: str, *columns: Column[Any] | UniqueConstraint) -> Table:
    return Table(name, MetaData(), *columns, **MYSQL)
