"""Migrations of the fixed tables (`dosel.db.tables`). Use cases' own tables are not among them.

Each file of `versions/` is one step, named by its number. Every process that opens the data store calls `migrate`.
MySQL commits each DDL statement by itself, so a step can be killed in the middle: it must check what exists and do the
rest.
"""

from functools import cache
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from dosel.db.engine import reading, transaction
from dosel.db.locks import hold
from dosel.errors import WarehouseError

VERSION_TABLE = "dosel_schema_version"
"""Alembic's own name for it may be taken: MLflow and Optuna can keep their tables in the same schema."""

_FOLDER = Path(__file__).parent


def migrate(engine: Engine) -> None:
    """Brings the fixed tables to the newest revision. Costs one short query if they have it.

    Several processes may call this at once: one migrates, and the others wait.

    Raises:
        WarehouseError: the data store failed, or a newer dosel has migrated it.
    """
    if current(engine) == head():
        return
    with hold(engine, "migrating the tables"):
        revision = current(engine)
        if revision is not None and revision not in _revisions():
            raise WarehouseError(
                f"the data store has tables of revision {revision}, and this dosel knows them up to {head()}: "
                "a newer dosel has migrated them; install that one, or restore a backup"
            )
        # Imported here: it takes a fifth of a second, and most processes have nothing to migrate.
        from alembic import command
        from alembic.config import Config

        with transaction(engine) as connection:
            config = Config(attributes={"connection": connection})
            config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
            command.upgrade(config, "head")


def current(engine: Engine) -> str | None:
    """The revision of the tables; None if they were made before there were revisions, or do not exist."""
    with reading(engine) as connection:
        try:
            return _revision(connection)
        except (ProgrammingError, OperationalError) as error:
            if error.connection_invalidated:
                raise
            # Another process may have created the table meanwhile.
            return _revision(connection) if inspect(connection).has_table(VERSION_TABLE) else None


def _revision(connection: Connection) -> str | None:
    revision = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return None if revision is None else str(revision)


def head() -> str:
    """The newest revision that this dosel knows."""
    return _revisions()[-1]


@cache
def _revisions() -> tuple[str, ...]:
    return tuple(sorted(file.stem.partition("_")[0] for file in (_FOLDER / "versions").glob("[0-9]*.py")))
