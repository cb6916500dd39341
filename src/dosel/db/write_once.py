"""Triggers with which the data store itself refuses to change or delete entries of the ledgers.

They are additional protection: the database's owner can drop them, and then `dosel verify` finds the change.
"""

import logging

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from dosel.db.chain import CHAINED, REMOVABLE
from dosel.db.tables import CHAIN

log = logging.getLogger(__name__)

_REFUSED = "entries of the ledgers are only added"

_NOT_ALLOWED = {1142, 1227, 1419}
"""MySQL's errors for a user who may not create triggers."""


def protect(connection: Connection) -> None:
    """Create the triggers that are missing. A user who may not create any gets a line in the log, and goes on."""
    there = inspect(connection).get_table_names()
    for table in (*CHAINED.values(), CHAIN):
        # A later migration creates the others.
        if table.name not in there:
            continue
        for event in ("UPDATE",) if table in REMOVABLE else ("UPDATE", "DELETE"):
            try:
                _create(connection, table.name, event)
            except DBAPIError as error:
                code = error.orig.args[0] if error.orig is not None and error.orig.args else None
                if code not in _NOT_ALLOWED:
                    raise
                log.warning(
                    "the data store does not let its user create triggers (%s); entries of the ledgers "
                    "are protected by their hash chain alone",
                    error.orig,
                )
                return


def _create(connection: Connection, table: str, event: str) -> None:
    name = f"{table}_no_{event.lower()}"
    if connection.dialect.name == "sqlite":
        refuse = f"BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END"
        connection.execute(text(f"CREATE TRIGGER IF NOT EXISTS {name} BEFORE {event} ON {table} {refuse}"))
        return
    there = "SELECT 1 FROM information_schema.triggers WHERE trigger_schema = DATABASE() AND trigger_name = :name"
    if connection.execute(text(there), {"name": name}).first() is None:
        refuse = f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{_REFUSED}'"
        connection.execute(text(f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW {refuse}"))
