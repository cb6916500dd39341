"""What the training process records of a model, the gate's verdicts, and folders that `dosel gc` has listed."""

from sqlalchemy import Column, Integer, MetaData, String, Table, Text

from dosel.db.migrations.steps import add_columns, create_index, create_tables
from dosel.db.types import AUTO_ID, LONG_TEXT, MOMENT, MYSQL

revision = "0004"
down_revision = "0003"

_METADATA = MetaData()


def upgrade() -> None:
    add_columns("manifests", Column("facts", LONG_TEXT), Column("family", String(64)))
    create_tables(
        Table(
            "verdicts",
            _METADATA,
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("model", String(128), nullable=False),
            Column("version", Integer, nullable=False),
            Column("run_id", String(64), nullable=False),
            Column("at", MOMENT, nullable=False),
            Column("passed", Integer, nullable=False),
            Column("reason", Text, nullable=False),
            Column("report", LONG_TEXT),
            **MYSQL,
        ),
        Table(
            "orphans",
            _METADATA,
            Column("folder", String(512), primary_key=True),
            Column("seen_at", MOMENT, nullable=False),
            **MYSQL,
        ),
    )
    create_index("ix_verdicts_model_version", "verdicts", ["model", "version"])
