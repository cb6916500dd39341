"""Signatures of rows of the ledgers. `dosel sign` adds those of the rows that there are."""

from alembic import op
from sqlalchemy import Column, MetaData, String, Table

from dosel.db import write_once
from dosel.db.migrations.steps import create_index, create_tables
from dosel.db.types import AUTO_ID, MYSQL

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    create_tables(
        Table(
            "ledger_seals",
            MetaData(),
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("table_name", String(64), nullable=False),
            Column("row_key", String(255), nullable=False),
            Column("seal", String(512), nullable=False),
            **MYSQL,
        )
    )
    create_index("ix_ledger_seals_table_name_row_key", "ledger_seals", ["table_name", "row_key"])
    write_once.protect(op.get_bind())
