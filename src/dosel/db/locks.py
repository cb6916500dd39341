"""Turns: what one process at a time may do, over several systems that share no transaction."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from dosel.db.engine import in_words
from dosel.errors import WarehouseError

WAIT_SECONDS = 120
"""How long a process waits for its turn."""

IDLE_SECONDS = 180
"""After so long without a word from the holder, MySQL takes its machine for gone and gives the turn to the next."""


@dataclass(frozen=True)
class ModelLock:
    """Held until the block that took it ends, or the process does."""

    name: str
    _connection: Connection | None = None

    def check(self) -> None:
        """
        Raises:
            WarehouseError: the connection that held the turn was lost, so that another may have it now.
        """
        if self._connection is None:
            return
        try:
            held = self._connection.scalar(text("SELECT IS_USED_LOCK(:name) = CONNECTION_ID()"), {"name": self.name})
        except DBAPIError as error:
            raise WarehouseError(f"the data store broke off while {self.name} was held ({error.orig})") from error
        if not held:
            raise WarehouseError(f"{self.name} was lost to somebody else; try again")


@contextmanager
def hold(engine: Engine, what: str) -> Iterator[ModelLock]:
    """Waits until nobody else has the turn called `what`.

    On MySQL a named lock on a connection of its own, on SQLite a lock on a file beside the database: the
    database itself stays free for transactions meanwhile. Both end with the process, however it ends.

    Raises:
        WarehouseError: it did not come within `WAIT_SECONDS`, or the data store failed.
    """
    if engine.dialect.name == "sqlite":
        with _sqlite_lock(engine.url.database or "", what) as held:
            yield held
    else:
        with _mysql_lock(engine, what) as held:
            yield held


@contextmanager
def _mysql_lock(engine: Engine, what: str) -> Iterator[ModelLock]:
    # Names of locks belong to the server, not the schema, and have at most 64 characters.
    name = "dosel " + hashlib.sha256(f"{engine.url.database} {what}".encode()).hexdigest()[:40]
    try:
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    except DBAPIError as error:
        raise WarehouseError(in_words(engine, error)) from error
    try:
        try:
            connection.execute(text(f"SET SESSION wait_timeout = {IDLE_SECONDS}"))
            mine = connection.scalar(text("SELECT GET_LOCK(:name, :wait)"), {"name": name, "wait": WAIT_SECONDS})
        except DBAPIError as error:
            raise WarehouseError(in_words(engine, error)) from error
        if not mine:
            raise _not_acquired(what)
        yield ModelLock(name, connection)
    finally:
        # Ended, not returned to the pool: that is what gives the lock back whatever happened.
        connection.invalidate()
        connection.close()


@contextmanager
def _sqlite_lock(database: str, what: str) -> Iterator[ModelLock]:
    if not database or database == ":memory:":
        yield ModelLock(what)
        return
    with closing(sqlite3.connect(f"{database}.turns", timeout=WAIT_SECONDS, isolation_level=None)) as file:
        try:
            file.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise _not_acquired(what) from error
        yield ModelLock(what)


def _not_acquired(what: str) -> WarehouseError:
    return WarehouseError(f"{what}: others were at it for {WAIT_SECONDS} s; is one of them stuck? Try again")
