"""Locks between processes, for changes of several systems that share no transaction."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from dosel.db.engine import in_words
from dosel.errors import LockTaken, WarehouseError

WAIT_SECONDS = 120
"""Time that a process waits for a lock."""

IDLE_SECONDS = 180
"""MySQL releases a lock whose connection was idle for this time, since its machine may be gone."""


@dataclass(frozen=True)
class NamedLock:
    """A lock that this process holds until the end of the block, or of the process."""

    name: str
    _connection: Connection | None = None

    def check(self) -> None:
        """Check that the lock is still held.

        Raises:
            WarehouseError: its connection was lost, so that another process may hold the lock now.
        """
        if self._connection is None:
            return
        try:
            held = self._connection.scalar(text("SELECT IS_USED_LOCK(:name) = CONNECTION_ID()"), {"name": self.name})
        except DBAPIError as error:
            raise WarehouseError(f"the data store failed while {self.name} was locked ({error.orig})") from error
        if not held:
            raise WarehouseError(f"the lock {self.name} was lost to another process; try again")


def hold(
    engine: Engine, what: str, wait: float = WAIT_SECONDS, file: str = "turns"
) -> AbstractContextManager[NamedLock]:
    """Wait for the lock called `what` and hold it for the block.

    On MySQL it is a named lock on its own connection, on SQLite a lock on a file next to the database, so that the
    database stays free for transactions. Both are released when the process ends.

    Args:
        wait: seconds to wait for it.
        file: the ending of SQLite's file; locks with the same file exclude each other.

    Raises:
        LockTaken: the lock was not free within `wait` seconds.
        WarehouseError: the data store failed.
    """
    if engine.dialect.name == "sqlite":
        return _sqlite_lock(engine.url.database or "", what, wait, file)
    return _mysql_lock(engine, what, wait)


@contextmanager
def _mysql_lock(engine: Engine, what: str, wait: float) -> Iterator[NamedLock]:
    # Lock names are global to the server and have at most 64 characters.
    name = "dosel " + hashlib.sha256(f"{engine.url.database} {what}".encode()).hexdigest()[:40]
    try:
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    except DBAPIError as error:
        raise WarehouseError(in_words(engine, error)) from error
    try:
        try:
            connection.execute(text(f"SET SESSION wait_timeout = {IDLE_SECONDS}"))
            mine = connection.scalar(text("SELECT GET_LOCK(:name, :wait)"), {"name": name, "wait": wait})
        except DBAPIError as error:
            raise WarehouseError(in_words(engine, error)) from error
        if not mine:
            raise _not_acquired(what, wait)
        yield NamedLock(name, connection)
    finally:
        # Closed, not returned to the pool, since that releases the lock in every case.
        connection.invalidate()
        connection.close()


@contextmanager
def _sqlite_lock(database: str, what: str, wait: float, file: str) -> Iterator[NamedLock]:
    if not database or database == ":memory:":
        yield NamedLock(what)
        return
    with closing(sqlite3.connect(f"{database}.{file}", timeout=wait, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise _not_acquired(what, wait) from error
        yield NamedLock(what)


def _not_acquired(what: str, wait: float) -> LockTaken:
    return LockTaken(f"{what}: another process held the lock for {wait:g} s; is it stuck? Try again")
