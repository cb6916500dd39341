"""Steps of migrations that can be repeated: each checks first what exists."""

from alembic import op
from sqlalchemy import Column, Table, inspect
from sqlalchemy.schema import CreateTable


def create_tables(*tables: Table) -> None:
    """Create the tables that do not exist."""
    for table in tables:
        op.execute(CreateTable(table, if_not_exists=True))


def add_columns(table: str, *columns: Column[object]) -> None:
    """Add the columns that the table does not have."""
    there = {column["name"] for column in inspect(op.get_bind()).get_columns(table)}
    for column in columns:
        if column.name not in there:
            op.add_column(table, column)


def create_index(name: str, table: str, columns: list[str]) -> None:
    """Create an index unless the table has one of this name."""
    if name not in {index["name"] for index in inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, columns)
