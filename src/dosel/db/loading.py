"""Writes many rows to a table in the server's fastest way: exactly these rows or none.

MySQL's `LOAD DATA LOCAL` never fails on data: it clips numbers, turns text into 0 and drops duplicates, each with only
a warning. A load therefore counts only if it changed as many rows as were sent and gave no warning. Its other danger is
on the client's side: an ordinary client sends any file that the server names. This one has no file to send.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pymysql
from pymysql.connections import MySQLResult
from sqlalchemy import Connection, Engine, NullPool, Table, create_engine, event
from sqlalchemy.exc import OperationalError

from dosel.db.engine import connect_arguments, insert_text, transaction
from dosel.errors import WarehouseError

NAME = "rows of dosel"
"""The file name in our statements; a server that asks for another file gets nothing."""

_PACKET_BYTES = 1 << 18
_ROWS_PER_PART = 4096
_ROWS_PER_INSERT = 10_000

_NOT_ALLOWED = frozenset({1148, 3948, 4166})
"""Error codes of MySQL and MariaDB for a disabled `local_infile`."""

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\0": "\\0"}
_FORMAT = "FIELDS TERMINATED BY X'09' ESCAPED BY X'5C' LINES TERMINATED BY X'0A'"

log = logging.getLogger(__name__)


class Loader:
    """Opens transactions that can load many rows.

    Args:
        engine: the data store; on MySQL, these transactions have their own connections, since only those may load.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine if engine.dialect.name == "sqlite" else _loading_engine(engine)
        self._loads = engine.dialect.name != "sqlite"

    def transaction(self) -> AbstractContextManager[Connection]:
        """As `engine.transaction`."""
        return transaction(self._engine)

    def put(self, connection: Connection, table: Table, rows: pa.Table) -> None:
        """Add rows; their columns have the table's names.

        Raises:
            WarehouseError: the table would not contain exactly these rows.
        """
        if not rows.num_rows:
            return
        if self._loads:
            try:
                _load(connection, table, rows)
                return
            except OperationalError as error:
                if error.orig is None or error.orig.args[0] not in _NOT_ALLOWED:
                    raise
            self._loads = False
            log.warning("local_infile is off on the data store's server: rows are inserted, which takes longer")
        _insert(connection, table, rows)


def lines(rows: pa.Table) -> Iterator[memoryview]:
    r"""The rows as `LOAD DATA` reads them by default: tabs between values, a line a row, `\N` for a null.

    In parts, so that the server reads one while the next is made.
    """
    fields = pa.table({name: _field(rows[name].combine_chunks()) for name in rows.column_names})
    for part in fields.to_batches(_ROWS_PER_PART):
        text = pc.binary_join_element_wise(*part.columns, "\t")
        _, offsets, data = pc.binary_join_element_wise(text, "", "\n").buffers()
        yield memoryview(data)[: memoryview(offsets).cast("i")[part.num_rows]]


def _field(values: pa.Array) -> pa.Array:
    """A column as text, with its escapes."""
    if values.null_count == len(values):
        return pa.repeat("\\N", len(values))
    if not pa.types.is_string(values.type):
        return pc.cast(values, pa.string()).fill_null("\\N")
    # Search the whole column at once, since special characters are rare: Arrow would search each value.
    data = values.buffers()[2]
    held = data.to_pybytes() if data else b""
    for character, escape in _ESCAPES.items():
        if character.encode() in held:
            values = pc.replace_substring(values, character, escape)
    return values.fill_null("\\N")


def _load(connection: Connection, table: Table, rows: pa.Table) -> None:
    quote = connection.dialect.identifier_preparer
    columns = ", ".join(quote.quote(name) for name in rows.column_names)
    sender = connection.connection.driver_connection
    assert isinstance(sender, _Sender)
    with sender.holding(lines(rows)):
        done = connection.exec_driver_sql(
            f"LOAD DATA LOCAL INFILE '{NAME}' INTO TABLE {quote.format_table(table)} "
            f"CHARACTER SET utf8mb4 {_FORMAT} ({columns})"
        )
    warnings = connection.exec_driver_sql("SHOW WARNINGS LIMIT 3").all()
    if done.rowcount != rows.num_rows or warnings:
        reported = "; ".join(str(message) for _, _, message in warnings) or "no warning"
        raise WarehouseError(
            f"{table.name}: {rows.num_rows} rows were sent and {done.rowcount} were stored ({reported}); "
            "the whole load was rolled back"
        )


def _insert(connection: Connection, table: Table, rows: pa.Table) -> None:
    statement = insert_text(connection.dialect, table, rows.column_names)
    for part in rows.to_batches(_ROWS_PER_INSERT):
        values = list(zip(*(column.to_pylist() for column in part.columns), strict=True))
        connection.exec_driver_sql(statement, values)


class _Result(MySQLResult):  # type: ignore[misc]
    """A result that answers the server's request for a file with the connection's rows."""

    def _read_load_local_packet(self, first_packet: Any) -> None:
        sender = self.connection
        asked = first_packet.get_all_data()[1:].decode("utf-8", "replace")
        held: Iterator[memoryview] | None = sender.held if asked == NAME else None
        try:
            for part in held or ():
                for start in range(0, len(part), _PACKET_BYTES):
                    sender.write_packet(part[start : start + _PACKET_BYTES])
        finally:
            # The server waits for the empty packet that ends the file, also after an error.
            sender.write_packet(b"")
            self._read_ok_packet(sender._read_packet())
        if held is None:
            raise pymysql.err.InternalError(f"the server asked for the client's file {asked!r} and got nothing")


class _Sender(pymysql.connections.Connection):  # type: ignore[misc]
    """A connection that can load rows, but no files."""

    held: Iterator[memoryview] | None = None

    @contextmanager
    def holding(self, data: Iterator[memoryview]) -> Iterator[None]:
        self.held = data
        try:
            yield
        finally:
            self.held = None

    def _read_query_result(self, unbuffered: bool = False) -> Any:
        self._result = None
        result = _Result(self)
        result.read()
        self._result = result
        if result.server_status is not None:
            self.server_status = result.server_status
        return result.affected_rows


def _loading_engine(engine: Engine) -> Engine:
    loading = create_engine(engine.url, poolclass=NullPool, connect_args=connect_arguments() | {"local_infile": True})

    @event.listens_for(loading, "do_connect")
    def _connect(_dialect: Any, _record: Any, arguments: Any, named: Any) -> _Sender:
        return _Sender(*arguments, **named)

    return loading
