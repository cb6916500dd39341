"""Emptying a use case: its rows and its part of the batch ledger, whole or not at all."""

from sqlalchemy import Connection, Delete, Engine, Table, delete, func, select

from dosel.db.engine import transaction
from dosel.db.tables import BATCHES, WRITERS, create, tables_of
from dosel.usecases import UseCase


def held(engine: Engine, use_case: UseCase) -> dict[str, int]:
    """How many rows `clear` would remove, by table; tables without any are left out."""
    with transaction(engine) as connection:
        return _counts(connection, use_case)


def clear(engine: Engine, use_case: UseCase) -> dict[str, int]:
    """Removes them, and tells what was removed. What was in Production, and when, stays on record.

    Raises:
        WarehouseError: the data store failed, or a batch was being stored for too long; nothing is removed.
    """
    with transaction(engine) as connection:
        create(connection, WRITERS, *_tables(use_case))
        # Whoever stores a batch holds this row: either it is in and removed with the rest, or it comes afterwards.
        connection.execute(select(WRITERS).where(WRITERS.c.use_case == use_case.name).with_for_update())
        removed = _counts(connection, use_case)
        for table in _tables(use_case):
            connection.execute(_own(delete(table), table, use_case))
        return removed


def _tables(use_case: UseCase) -> tuple[Table, ...]:
    return (*vars(tables_of(use_case)).values(), BATCHES)


def _counts(connection: Connection, use_case: UseCase) -> dict[str, int]:
    create(connection, *_tables(use_case))
    counts = {}
    for table in _tables(use_case):
        query = select(func.count()).select_from(table)
        if table is BATCHES:
            query = query.where(BATCHES.c.use_case == use_case.name)
        counts[str(table.name)] = int(connection.scalar(query) or 0)
    return {name: count for name, count in counts.items() if count}


def _own(statement: Delete, table: Table, use_case: UseCase) -> Delete:
    """The ledger of batches is everybody's, the other tables are the use case's alone."""
    return statement.where(BATCHES.c.use_case == use_case.name) if table is BATCHES else statement
