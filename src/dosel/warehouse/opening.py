"""Opening a use case's tables: create them, add a new optional feature, refuse any other change of the declaration."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, Engine, Table, inspect

from dosel.db.comparison import compare
from dosel.db.engine import reading, transaction
from dosel.db.locks import hold
from dosel.db.migrations import migrate
from dosel.db.tables import UseCaseTables, create, tables_of
from dosel.errors import SchemaError
from dosel.usecases import UseCase


def open_tables(engine: Engine, use_case: UseCase) -> UseCaseTables:
    """The use case's tables, as it declares them. Several processes may open them at once.

    Raises:
        SchemaError: the tables do not fit the declaration; the message names each column and the choices.
        WarehouseError: the data store failed.
    """
    migrate(engine)
    tables = tables_of(use_case)
    with reading(engine) as connection:
        there = set(inspect(connection).get_table_names())
    # Checked first: a read-only server refuses CREATE TABLE even for existing tables.
    if missing := [table for table in (tables.raw, tables.clean, tables.quarantine) if table.name not in there]:
        with transaction(engine) as connection:
            create(connection, *missing)
    if _added(engine, use_case):
        # It imports pandas, which commands that only read the ledger need not wait for.
        from dosel.warehouse.extending import extend

        with hold(engine, f"adding columns to the tables of {use_case.name}"):
            extend(engine, use_case, _added(engine, use_case))
    return tables


def _added(engine: Engine, use_case: UseCase) -> Mapping[Table, tuple[Column[Any], ...]]:
    """The columns to add."""
    with reading(engine) as connection:
        comparison = compare(connection, use_case)
    if comparison.differences:
        raise SchemaError(str(comparison))
    return comparison.added
