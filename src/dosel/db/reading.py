"""Reads many rows of a table as columns."""

from collections.abc import Mapping
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pyarrow as pa
from sqlalchemy import Engine, Select

from dosel.db.engine import reading
from dosel.errors import WarehouseError


def read(engine: Engine, query: Select[*tuple[object, ...]], types: Mapping[str, str]) -> pd.DataFrame:
    """Run a query: columns of the given `types`, all others as text.

    The query may compare with numbers, not with texts: connectorx takes no parameters, so that the values are written
    into the statement. Equal texts are one shared object.

    Raises:
        WarehouseError: the data store cannot be reached, or failed.
    """
    statement = str(query.compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True}))
    with reading(engine) as connection:
        # With SQLAlchemy first, whose errors are clear, and which needs no rows to know the types.
        first = pd.read_sql(query.limit(1), connection)
        url = _connectorx_url(engine)
        if first.empty or url is None:
            rest = first if first.empty else pd.read_sql(query, connection)
            return _typed(pa.Table.from_pandas(rest, preserve_index=False), types)
    import connectorx

    try:
        table = connectorx.read_sql(url, statement, return_type="arrow", protocol="binary")
    except RuntimeError as error:
        address = engine.url.render_as_string(hide_password=True)
        raise WarehouseError(f"the data store at {address} failed while it was read: {error}") from error
    return _typed(table, types)


def _connectorx_url(engine: Engine) -> str | None:
    """The URL for connectorx; None where it cannot be used.

    The API's image leaves connectorx (200 MB) out. connectorx cannot be used for a URL with options, which only PyMySQL
    understands, or for SQLite: it contains its own SQLite, and two copies in one process break each other's file locks
    and corrupt the database (https://www.sqlite.org/howtocorrupt.html, 2.2.1).
    """
    if engine.dialect.name == "sqlite" or engine.url.query or find_spec("connectorx") is None:
        return None
    return engine.url.set(drivername="mysql").render_as_string(hide_password=False)


def _typed(table: pa.Table, types: Mapping[str, str]) -> pd.DataFrame:
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        if name in types:
            columns[name] = pd.Series(column.to_numpy().astype(types[name], copy=False), copy=False)
        else:
            words = column.cast(pa.string()).combine_chunks().dictionary_encode()
            # The last entry is the value of a null.
            spelled = np.array([*words.dictionary.to_pylist(), None], dtype=object)
            places = words.indices.fill_null(len(spelled) - 1)
            columns[name] = pd.Series(spelled[places.to_numpy()], dtype=object)
    return pd.DataFrame(columns, copy=False)
