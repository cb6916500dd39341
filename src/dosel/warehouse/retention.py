"""Deletes old entries of the prediction log, in chunks, so that no transaction is long."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, Table, delete, select

from dosel.db.engine import transaction
from dosel.db.migrations import migrate
from dosel.db.tables import ANSWERS, FEEDBACK, PREDICTIONS

CHUNK = 2_000


def prune(engine: Engine, days: int) -> int:
    """Delete answers that are older than `days` days, with the feedback on them; return how many.

    Labelled rows stay, since they hold classes and no features. Killed anywhere, the next call deletes the rest.

    Raises:
        WarehouseError: the data store cannot be reached, or failed.
    """
    migrate(engine)
    before = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=days)
    return sum(_prune(engine, table, before) for table in (ANSWERS, PREDICTIONS))


def _prune(engine: Engine, table: Table, before: datetime) -> int:
    deleted = 0
    with transaction(engine) as connection:
        use_cases = connection.scalars(select(table.c.use_case).distinct()).all()
    for use_case in use_cases:
        # By the index of use case and time.
        old = select(table.c.id).where(table.c.use_case == use_case, table.c.at < before).order_by(table.c.at)
        while True:
            with transaction(engine) as connection:
                ids = connection.scalars(old.limit(CHUNK)).all()
                if table is ANSWERS:
                    connection.execute(delete(FEEDBACK).where(FEEDBACK.c.answer_id.in_(ids)))
                connection.execute(delete(table).where(table.c.id.in_(ids)))
            deleted += len(ids)
            if len(ids) < CHUNK:
                break
    return deleted
