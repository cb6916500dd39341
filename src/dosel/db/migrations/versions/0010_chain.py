"""The hash chain over the ledgers, which starts with an entry for each row that there is.

A database whose ledgers may refuse changes gets triggers for it.
"""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, select

from dosel.db import chain, write_once
from dosel.db.migrations.steps import create_tables
from dosel.db.types import MYSQL

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    metadata = MetaData()
    head = Table(
        "ledger_chain_head",
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("sequence", BigInteger, nullable=False),
        Column("hash", String(64), nullable=False),
        **MYSQL,
    )
    create_tables(
        Table(
            "ledger_chain",
            metadata,
            Column("sequence", BigInteger, primary_key=True, autoincrement=False),
            Column("kind", String(16), nullable=False),
            Column("table_name", String(64), nullable=False),
            Column("row_key", String(255), nullable=False),
            Column("digest", String(64), nullable=False),
            Column("previous", String(64), nullable=False),
            Column("hash", String(64), nullable=False),
            **MYSQL,
        ),
        head,
    )
    write_once.protect(op.get_bind())
    # The entries and the head are one transaction: after a step that was killed, there is none of them.
    if op.get_bind().execute(select(head.c.id)).first() is None:
        chain.start(op.get_bind())
