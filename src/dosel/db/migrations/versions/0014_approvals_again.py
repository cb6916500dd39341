"""A person may approve a request again: with a new key, or if somebody has forged an approval in the person's name."""

from alembic import op
from sqlalchemy import Column, Integer, MetaData, String, Table, UniqueConstraint, inspect

from dosel.db import write_once
from dosel.db.migrations.steps import create_tables
from dosel.db.types import AUTO_ID, MOMENT, MYSQL

revision = "0014"
down_revision = "0013"

ONE_OF_A_NAME = ["model", "number", "holder"]


def upgrade() -> None:
    there = inspect(op.get_bind()).get_unique_constraints("approvals")
    found = [constraint for constraint in there if constraint["column_names"] == ONE_OF_A_NAME]
    if found and op.get_bind().dialect.name == "sqlite":
        _copy()
    elif found:
        op.drop_constraint(str(found[0]["name"]), "approvals", type_="unique")
    write_once.protect(op.get_bind())


def _copy() -> None:
    """SQLite cannot drop a constraint: copy the rows to a new table. The old one takes its triggers with it."""
    op.rename_table("approvals", "approvals_before")
    create_tables(
        Table(
            "approvals",
            MetaData(),
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("model", String(128), nullable=False),
            Column("number", Integer, nullable=False),
            Column("holder", String(255), nullable=False),
            Column("at", MOMENT, nullable=False),
            Column("mac", String(64), nullable=False),
            UniqueConstraint("model", "number", "mac"),
            **MYSQL,
        )
    )
    op.execute("INSERT INTO approvals SELECT * FROM approvals_before")
    op.drop_table("approvals_before")
