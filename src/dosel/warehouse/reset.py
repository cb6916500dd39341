"""Empties or drops a use case's tables and its part of the batch ledger. The promotion ledger keeps its entries."""

from sqlalchemy import ColumnElement, Connection, Engine, Table, delete, func, inspect, select, true
from sqlalchemy.schema import DropTable

from dosel.db import chain
from dosel.db.engine import transaction
from dosel.db.migrations import migrate
from dosel.db.tables import BATCHES, REFUSED_BATCHES, WRITERS, tables_of
from dosel.usecases import UseCase

_LEDGERS = (BATCHES, REFUSED_BATCHES)


def held(engine: Engine, use_case: UseCase) -> dict[str, int]:
    """How many rows `clear` would remove, by table; tables without any are left out."""
    migrate(engine)
    with transaction(engine) as connection:
        return {name: count for name, count in _counts(connection, use_case).items() if count}


def has_tables(engine: Engine, use_case: UseCase) -> bool:
    """Whether `drop` would drop a table, empty or not."""
    with transaction(engine) as connection:
        return len(_existing(connection, use_case)) > len(_LEDGERS)


def clear(engine: Engine, use_case: UseCase) -> dict[str, int]:
    """Removes the rows and the ledger's lines, all or none, and returns how many, by table.

    Raises:
        WarehouseError: the data store failed, or a batch was being stored for too long; nothing is removed.
    """
    migrate(engine)
    with transaction(engine) as connection:
        # A process that stores a batch holds this row: the batch is removed with the rest, or comes afterwards.
        connection.execute(select(WRITERS).where(WRITERS.c.use_case == use_case.name).with_for_update())
        removed = _counts(connection, use_case)
        for ledger in _LEDGERS:
            chain.append_removals(connection, ledger, _mine(ledger, use_case))
        for table in _existing(connection, use_case):
            connection.execute(delete(table).where(_mine(table, use_case)))
        return {name: count for name, count in removed.items() if count}


def drop(engine: Engine, use_case: UseCase) -> dict[str, int]:
    """Drops the three tables and removes the ledger's lines, and returns how many rows there were, by table.

    Stopped in the middle, it can be called again.

    Raises:
        WarehouseError: the data store failed.
    """
    removed = held(engine, use_case)
    with transaction(engine) as connection:
        for table in vars(tables_of(use_case)).values():
            connection.execute(DropTable(table, if_exists=True))
    # Last: MySQL drops outside of transactions, and a batch may have been stored meanwhile in tables made again.
    clear(engine, use_case)
    return removed


def _existing(connection: Connection, use_case: UseCase) -> list[Table]:
    there = inspect(connection)
    tables = (*vars(tables_of(use_case)).values(), *_LEDGERS)
    return [table for table in tables if there.has_table(table.name)]


def _counts(connection: Connection, use_case: UseCase) -> dict[str, int]:
    counts = {}
    for table in _existing(connection, use_case):
        query = select(func.count()).select_from(table).where(_mine(table, use_case))
        counts[str(table.name)] = int(connection.scalar(query) or 0)
    return counts


def _mine(table: Table, use_case: UseCase) -> ColumnElement[bool]:
    """The use case's rows: all rows of its own tables, and its part of the ledgers of batches."""
    return table.c.use_case == use_case.name if table in _LEDGERS else true()
