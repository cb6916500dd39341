"""Tables for each answered row and the truth about it. The table `predictions` stays as it is."""

from sqlalchemy import BigInteger, Column, Double, Integer, MetaData, String, Table, UniqueConstraint

from dosel.db.migrations.steps import create_index, create_tables
from dosel.db.types import AUTO_ID, LONG_TEXT, MOMENT, MYSQL

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    metadata = MetaData()
    create_tables(
        Table(
            "answers",
            metadata,
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("request_id", String(64), nullable=False),
            Column("row_no", Integer, nullable=False),
            Column("rows", Integer, nullable=False),
            Column("trace_id", String(64)),
            Column("at", MOMENT, nullable=False),
            Column("use_case", String(64), nullable=False),
            Column("model", String(128), nullable=False),
            Column("version", Integer, nullable=False),
            Column("features", LONG_TEXT, nullable=False),
            Column("features_key", BigInteger, nullable=False),
            Column("probabilities", LONG_TEXT, nullable=False),
            Column("answered", Integer, nullable=False),
            UniqueConstraint("request_id", "row_no"),
            **MYSQL,
        ),
        Table(
            "feedback",
            metadata,
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("answer_id", BigInteger, nullable=False, unique=True),
            Column("at", MOMENT, nullable=False),
            Column("delay", Double, nullable=False),
            Column("sequence", Integer),
            Column("truth", Integer, nullable=False),
            Column("source", String(16), nullable=False),
            Column("reference", String(64), nullable=False),
            **MYSQL,
        ),
    )
    create_index("ix_answers_use_case_at", "answers", ["use_case", "at"])
    create_index("ix_answers_use_case_features_key", "answers", ["use_case", "features_key"])
