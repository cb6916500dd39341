"""Table for what is known about the answers of a version without labels."""

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table

from dosel.db.migrations.steps import create_tables
from dosel.db.types import LONG_TEXT, MOMENT, MYSQL

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    create_tables(
        Table(
            "contexts",
            MetaData(),
            Column("model", String(128), primary_key=True),
            Column("sequence", Integer, primary_key=True, autoincrement=False),
            Column("at", MOMENT, nullable=False),
            Column("last_answer", BigInteger, nullable=False),
            Column("document", LONG_TEXT, nullable=False),
            **MYSQL,
        )
    )
