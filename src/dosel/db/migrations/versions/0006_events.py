"""Tables for events, their delivery, and batches that were refused as a whole."""

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Text, UniqueConstraint
from sqlalchemy.schema import SchemaItem

from dosel.db.migrations.steps import create_tables
from dosel.db.types import AUTO_ID, LONG_TEXT, MOMENT, MYSQL

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    create_tables(
        _table(
            "refused_batches",
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("use_case", String(64), nullable=False),
            Column("stream", String(64), nullable=False),
            Column("epoch", String(64), nullable=False),
            Column("number", Integer, nullable=False),
            Column("source", String(255), nullable=False),
            Column("received_at", MOMENT, nullable=False),
            Column("rows_received", Integer, nullable=False),
            Column("rows_refused", Integer, nullable=False),
            Column("reason", Text, nullable=False),
            Column("first_reasons", LONG_TEXT, nullable=False),
            Column("digest", String(64), nullable=False),
            UniqueConstraint("use_case", "stream", "epoch", "number", "digest"),
        ),
        _table(
            "events",
            Column("id", AUTO_ID, primary_key=True, autoincrement=True),
            Column("incident", String(255), nullable=False, unique=True),
            Column("use_case", String(64), nullable=False),
            Column("kind", String(32), nullable=False),
            Column("at", MOMENT, nullable=False),
            Column("since", MOMENT, nullable=False),
            Column("what", Text, nullable=False),
            Column("evidence", Text, nullable=False),
            Column("command", Text, nullable=False),
            Column("place", String(255), nullable=False),
        ),
        _table(
            "event_targets",
            Column("target", String(64), primary_key=True),
            Column("after_event", BigInteger, nullable=False),
        ),
        _table(
            "event_deliveries",
            Column("event_id", BigInteger, primary_key=True, autoincrement=False),
            Column("target", String(64), primary_key=True),
            Column("attempts", Integer, nullable=False),
            Column("next_at", MOMENT, nullable=False),
            Column("delivered_at", MOMENT),
            Column("last_error", Text),
        ),
    )


def _table(name: str, *items: SchemaItem) -> Table:
    return Table(name, MetaData(), *items, **MYSQL)
