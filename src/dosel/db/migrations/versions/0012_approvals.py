"""Requests for approval and the approvals, and the request that a promotion follows from."""

from alembic import op
from sqlalchemy import Column, Integer, MetaData, String, Table, Text, UniqueConstraint

from dosel.db import write_once
from dosel.db.migrations.steps import add_columns, create_tables
from dosel.db.types import AUTO_ID, MOMENT, MYSQL

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    metadata = MetaData()
    add_columns("promotions", Column("request", Integer))
    create_tables(
        Table(
            "approval_requests",
            metadata,
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("model", String(128), nullable=False),
            Column("number", Integer, nullable=False),
            Column("version", Integer, nullable=False),
            Column("run_id", String(64), nullable=False),
            Column("manifest_digest", String(64), nullable=False),
            Column("gate_digest", String(64), nullable=False),
            Column("sequence", Integer, nullable=False),
            Column("kind", String(16), nullable=False),
            Column("at", MOMENT, nullable=False),
            Column("expires_at", MOMENT, nullable=False),
            Column("actor", String(255), nullable=False),
            Column("reason", Text, nullable=False),
            UniqueConstraint("model", "number"),
            **MYSQL,
        ),
        Table(
            "approvals",
            metadata,
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("model", String(128), nullable=False),
            Column("number", Integer, nullable=False),
            Column("holder", String(255), nullable=False),
            Column("at", MOMENT, nullable=False),
            Column("mac", String(64), nullable=False),
            UniqueConstraint("model", "number", "holder"),
            UniqueConstraint("model", "number", "mac"),
            **MYSQL,
        ),
    )
    write_once.protect(op.get_bind())
