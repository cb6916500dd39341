"""Compares a use case's declaration with its tables, and changes nothing."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Double, Float, Integer, String, Table, inspect

from dosel.db.engine import connect, reading
from dosel.db.tables import KEYS, tables_of
from dosel.usecases import UseCase

_KINDS = (
    (String, "text"),
    (BigInteger, "whole numbers beyond 2,147,483,647"),
    (Integer, "whole numbers"),
    (Float, "numbers with decimals"),
    (Double, "numbers with decimals"),
)


@dataclass(frozen=True)
class TableComparison:
    """`added` are optional features that a table lacks, by table; `differences` is what cannot be added, in words."""

    use_case: UseCase
    added: Mapping[Table, tuple[Column[Any], ...]]
    differences: tuple[str, ...]

    @property
    def added_names(self) -> list[str]:
        """The names of the features to add."""
        return list(dict.fromkeys(column.name for columns in self.added.values() for column in columns))

    def __str__(self) -> str:
        name = self.use_case.name
        return (
            f"the tables of {name} do not fit its declaration: {'; '.join(self.differences)}. Restore the "
            f"declaration, or run `dosel reset --drop {name}`: it drops the stored rows and batches of {name}, "
            "and keeps its models and their history"
        )


def compare_all(url: str, use_cases: Iterable[UseCase]) -> list[TableComparison]:
    """Compare each use case with the data store at `url`; empty if that is a file that does not exist yet.

    Raises:
        WarehouseError: the data store cannot be reached.
    """
    engine = connect(url)
    file = engine.url.database
    if engine.dialect.name == "sqlite" and not (file and Path(file).exists()):
        return []
    with reading(engine) as connection:
        return [compare(connection, use_case) for use_case in use_cases]


def compare(connection: Connection, use_case: UseCase) -> TableComparison:
    """Compare each declared column with the raw and clean tables; a table that does not exist fits."""
    tables = tables_of(use_case)
    raw, clean = _columns(connection, tables.raw), _columns(connection, tables.clean)
    differences = tuple(_differences(tables.clean, clean)) if clean else ()
    differences += tuple(
        f"{name}: the raw table has it, the declaration has not"
        for name in raw or ()
        if name not in tables.raw.c and name not in (clean or ())
    )
    added = {}
    for table, there in ((tables.raw, raw), (tables.clean, clean)):
        if there and (lacking := tuple(column for column in table.columns if column.name not in there)):
            added[table] = lacking
    return TableComparison(use_case, added, differences)


def _columns(connection: Connection, table: Table) -> dict[str, Any] | None:
    """The columns that exist, by name; None if the table does not."""
    inspector = inspect(connection)
    if not inspector.has_table(table.name):
        return None
    return {column["name"]: column for column in inspector.get_columns(table.name)}


def _differences(declared: Table, there: Mapping[str, Any]) -> Iterator[str]:
    for column in declared.columns:
        if column.name in KEYS:
            continue
        if column.name not in there:
            if not column.nullable:
                yield f"{column.name}: the declaration requires it, and the stored rows have no such column"
            continue
        found = there[column.name]
        if (was := _kind(found["type"])) != (now := _kind(column.type)):
            yield f"{column.name}: the clean table has {was}, the declaration {now}"
        if found["nullable"] != column.nullable:
            was, now = ("optional", "required") if found["nullable"] else ("required", "optional")
            yield f"{column.name}: {was} in the clean table, {now} in the declaration"
    for name in there:
        if name not in declared.c:
            yield f"{name}: the clean table has it, the declaration has not"


def _kind(column_type: Any) -> str:
    return next((words for kind, words in _KINDS if isinstance(column_type, kind)), str(column_type))
