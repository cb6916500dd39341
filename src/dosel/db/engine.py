"""Connections to the data store with time limits, and transactions."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Dialect, Engine, Table, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, InternalError, OperationalError

from dosel.errors import SettingsError, WarehouseError

CONNECT_SECONDS = 5
LOCK_SECONDS = 30
STATEMENT_SECONDS = 300

_READS = "dosel_reads"
"""Name of the execution option of engines whose transactions only read."""

# MySQL answers a packet that is too large with 1153 and closes the connection; a client that still writes may see only
# that the connection is lost.
_LOST = "is it running? If it is, a value may exceed its max_allowed_packet."

_HINTS = {
    1040: "it has as many connections as its max_connections allows.",
    1045: "are user and password right?",
    1049: "does the schema exist?",
    1053: "it is stopping; try again when it runs.",
    1153: "a value exceeds the server's max_allowed_packet; MySQL's default is 64 MB.",
    1290: "does the address name a replica, or did somebody set read_only?",
    1524: "MySQL 9 has no mysql_native_password: ALTER USER … IDENTIFIED WITH caching_sha2_password BY '…'.",
    1836: "does the address name a replica, or did somebody set read_only?",
    2003: "is it running?",
    2006: _LOST,
    2013: _LOST,
    2026: "ssl_ca is set, but the server has no TLS.",
}
"""Hints by MySQL's error code."""

_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_TLS_HINT = (
    "is ssl_ca the authority of the server's certificate, and is the certificate for this host name? For one that "
    "MySQL made itself, add &ssl_check_hostname=false."
)


def connect(url: str) -> Engine:
    """An engine for `url`, which connects on first use.

    Raises:
        SettingsError: `url` is not an SQLAlchemy URL of a supported database.
    """
    address, arguments = engine_arguments(url)
    engine = create_engine(address, **arguments)
    if engine.dialect.name == "sqlite":
        if address.database:
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)
        _make_sqlite_transactional(engine)
    return engine


def engine_arguments(url: str) -> tuple[URL, dict[str, Any]]:
    """The arguments of `create_engine` for `url`: the driver, and time limits.

    Raises:
        SettingsError: `url` is not an SQLAlchemy URL of a supported database.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SettingsError("DOSEL_WAREHOUSE_URL: expected an SQLAlchemy URL, such as mysql+pymysql://…") from None
    match parsed.get_backend_name():
        case "sqlite":
            return parsed, {"connect_args": {"timeout": LOCK_SECONDS}}
        case "mysql" | "mariadb":
            for option in ("ssl_ca", "ssl_cert", "ssl_key"):
                file = parsed.query.get(option)
                if isinstance(file, str) and not Path(file).is_file():
                    raise SettingsError(f"DOSEL_WAREHOUSE_URL: {option} names {file}, which is not a file")
            pool = {"pool_pre_ping": True, "pool_recycle": 1800}
            return parsed.set(drivername="mysql+pymysql"), pool | {"connect_args": connect_arguments()}
        case other:
            raise SettingsError(f"DOSEL_WAREHOUSE_URL: {other} is not supported; use mysql+pymysql or sqlite")


def connect_arguments() -> dict[str, Any]:
    """PyMySQL's arguments for every connection. Loading files is off; `loading` has its own connections for it."""
    return {
        "charset": "utf8mb4",
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": STATEMENT_SECONDS,
        "write_timeout": STATEMENT_SECONDS,
        "local_infile": False,
    }


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction, committed at the end of the block, or rolled back.

    Raises:
        WarehouseError: the data store cannot be reached, or failed.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except (OperationalError, InterfaceError, InternalError) as error:
        raise WarehouseError(in_words(engine, error)) from error


def reading(engine: Engine) -> AbstractContextManager[Connection]:
    """A transaction that only reads: on SQLite, it sees one state and never waits for a writer.

    Raises:
        WarehouseError: as `transaction`.
    """
    return transaction(engine.execution_options(**{_READS: True}))


def insert_text(dialect: Dialect, table: Table, columns: Iterable[str]) -> str:
    """An INSERT statement for the driver, for rows that are tuples in the order of `columns`."""
    quote = dialect.identifier_preparer
    names = [quote.quote(name) for name in columns]
    marks = ["?" if dialect.paramstyle == "qmark" else "%s"] * len(names)
    return f"INSERT INTO {quote.format_table(table)} ({', '.join(names)}) VALUES ({', '.join(marks)})"


def insert_once_text(dialect: Dialect, table: Table, columns: Iterable[str]) -> str:
    """As `insert_text`, for a table with an `id` and a unique key: a row that is stored already stays as it is.

    After a write whose success was lost on the way, the same rows are written again.
    """
    rest = {"sqlite": "ON CONFLICT DO NOTHING", "mysql": "ON DUPLICATE KEY UPDATE id = id"}[dialect.name]
    return f"{insert_text(dialect, table, columns)} {rest}"


def in_words(engine: Engine, error: DBAPIError) -> str:
    """A message that names the data store, the error and a hint."""
    address = engine.url.render_as_string(hide_password=True)
    code = error.orig.args[0] if error.orig is not None and error.orig.args else None
    if _UNTRUSTED in str(error.orig):
        hint = _TLS_HINT
    else:
        hint = (
            _HINTS.get(code, "") if isinstance(code, int) else "is the disk full, or does another process hold a lock?"
        )
    return f"the data store at {address} failed: {error.orig}" + (f"; {hint}" if hint else "")


def _make_sqlite_transactional(engine: Engine) -> None:
    """Begin each transaction that may write as a writer, so that concurrent ones wait instead of failing later."""

    @event.listens_for(engine, "connect")
    def _configure(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(_READS) else "BEGIN IMMEDIATE")
