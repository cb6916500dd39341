"""A table for labelled rows that a version in Production answered."""

from sqlalchemy import Column, Integer, MetaData, String, Table, UniqueConstraint

from dosel.db.migrations.steps import create_tables
from dosel.db.types import AUTO_ID, LONG_TEXT, MOMENT, MYSQL

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    create_tables(
        Table(
            "truths",
            MetaData(),
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("use_case", String(64), nullable=False),
            Column("model", String(128), nullable=False),
            Column("sequence", Integer, nullable=False),
            Column("version", Integer, nullable=False),
            Column("source", String(16), nullable=False),
            Column("reference", String(64), nullable=False),
            Column("at", MOMENT, nullable=False),
            Column("rows", Integer, nullable=False),
            Column("truth", LONG_TEXT, nullable=False),
            Column("answered", LONG_TEXT, nullable=False),
            UniqueConstraint("model", "sequence", "source", "reference"),
            **MYSQL,
        )
    )
