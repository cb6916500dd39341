"""Tables of shadows, and the column for what live rows showed in an entry of the promotion ledger."""

from sqlalchemy import Column, Double, Integer, MetaData, String, Table, Text, UniqueConstraint

from dosel.db.migrations.steps import add_columns, create_index, create_tables
from dosel.db.types import AUTO_ID, LONG_TEXT, MOMENT, MYSQL

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    add_columns("promotions", Column("live", LONG_TEXT))
    metadata = MetaData()
    create_tables(
        Table(
            "shadows",
            metadata,
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("model", String(128), nullable=False),
            Column("number", Integer, nullable=False),
            Column("role", String(16), nullable=False),
            Column("version", Integer, nullable=False),
            Column("run_id", String(64), nullable=False),
            Column("champion", Integer, nullable=False),
            Column("sequence", Integer, nullable=False),
            Column("at", MOMENT, nullable=False),
            Column("ends_at", MOMENT, nullable=False),
            Column("actor", String(255), nullable=False),
            Column("reason", Text, nullable=False),
            Column("gate", LONG_TEXT),
            UniqueConstraint("model", "number"),
            **MYSQL,
        ),
        Table(
            "shadow_ends",
            metadata,
            Column("model", String(128), primary_key=True),
            Column("number", Integer, primary_key=True, autoincrement=False),
            Column("at", MOMENT, nullable=False),
            Column("outcome", String(16), nullable=False),
            Column("actor", String(255), nullable=False),
            Column("reason", Text, nullable=False),
            Column("evidence", LONG_TEXT, nullable=False),
            **MYSQL,
        ),
        Table(
            "shadow_answers",
            metadata,
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("model", String(128), nullable=False),
            Column("number", Integer, nullable=False),
            Column("request_id", String(64), nullable=False),
            Column("row_no", Integer, nullable=False),
            Column("at", MOMENT, nullable=False),
            Column("probabilities", LONG_TEXT, nullable=False),
            Column("answered", Integer, nullable=False),
            Column("latency", Double, nullable=False),
            Column("champion_latency", Double),
            Column("counted", String(64)),
            UniqueConstraint("request_id", "row_no", "model", "number"),
            **MYSQL,
        ),
        Table(
            "shadow_truths",
            metadata,
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("model", String(128), nullable=False),
            Column("number", Integer, nullable=False),
            Column("source", String(16), nullable=False),
            Column("reference", String(64), nullable=False),
            Column("at", MOMENT, nullable=False),
            Column("rows", Integer, nullable=False),
            Column("truth", LONG_TEXT, nullable=False),
            Column("champion", LONG_TEXT, nullable=False),
            Column("shadow", LONG_TEXT, nullable=False),
            UniqueConstraint("model", "number", "source", "reference"),
            **MYSQL,
        ),
    )
    create_index("ix_shadow_answers_model_number", "shadow_answers", ["model", "number"])
    create_index("ix_shadow_answers_at", "shadow_answers", ["at"])
