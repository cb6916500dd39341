"""Changes of the ledgers by the owner of the database."""

from sqlalchemy import Connection, text

_TRIGGERS = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
    "mysql": "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE()",
}


def drop_triggers(connection: Connection) -> None:
    """Drop the triggers that protect the ledgers, as the owner of the database can."""
    for name in connection.scalars(text(_TRIGGERS[connection.dialect.name])).all():
        connection.execute(text(f"DROP TRIGGER {name}"))
