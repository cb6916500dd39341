"""Adding a new optional feature to a use case's tables."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sqlalchemy import Column, Connection, Engine, MetaData, Table, select, update
from sqlalchemy.schema import CreateColumn, CreateTable, DropTable

from dosel.db.engine import transaction
from dosel.db.loading import Loader
from dosel.db.tables import WRITERS, tables_of
from dosel.rows.hashing import row_keys
from dosel.usecases import Number, UseCase


def extend(engine: Engine, use_case: UseCase, added: Mapping[Table, tuple[Column[Any], ...]]) -> None:
    """Add columns. The clean table's columns come last, as the sign that all other steps are done."""
    clean = tables_of(use_case).clean
    if clean in added:
        loader = Loader(engine)
        with loader.transaction() as connection:
            _renew_row_keys(connection, loader, use_case, {column.name for column in added[clean]})
    for table, columns in sorted(added.items(), key=lambda item: item[0] is clean):
        with transaction(engine) as connection:
            for column in columns:
                declared = CreateColumn(column).compile(dialect=connection.dialect)
                name = connection.dialect.identifier_preparer.format_table(table)
                connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {declared}")


def _renew_row_keys(connection: Connection, loader: Loader, use_case: UseCase, new: set[str]) -> None:
    """Gives each stored row the key that it has under this declaration, with no value in the new columns.

    Otherwise a row that a source sends again would not be recognised as a duplicate.
    """
    clean = tables_of(use_case).clean
    # Locks out writers of batches.
    connection.execute(select(WRITERS).where(WRITERS.c.use_case == use_case.name).with_for_update())
    place = list(clean.primary_key.columns)
    renewed = Table(
        "renewed_row_keys",
        MetaData(),
        *(Column(column.name, column.type, primary_key=True, autoincrement=False) for column in place),
        Column("row_key", clean.c.row_key.type, nullable=False),
        prefixes=["TEMPORARY"],
    )
    connection.execute(CreateTable(renewed))
    query = select(*(column for column in clean.columns if column.name not in new))
    # One batch at a time: all rows may not fit into memory.
    for batch_id in connection.scalars(select(clean.c.batch_id).distinct()).all():
        rows = pd.read_sql(query.where(clean.c.batch_id == batch_id), connection)
        for feature in use_case.features:
            number = isinstance(feature, Number)
            if feature.name in new:
                rows[feature.name] = np.nan if number else None
            elif number:
                rows[feature.name] = rows[feature.name].astype("float64")
        keys = pa.array(row_keys(use_case, rows))
        loader.put(connection, renewed, pa.table({c.name: pa.array(rows[c.name]) for c in place} | {"row_key": keys}))
    key = select(renewed.c.row_key).where(*(renewed.c[column.name] == column for column in place)).scalar_subquery()
    connection.execute(update(clean).values(row_key=key))
    connection.execute(DropTable(renewed))
