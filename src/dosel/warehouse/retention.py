"""Deletes old entries of the prediction log, in chunks, so that no transaction is long."""

import logging
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, Select, Table, delete, func, select

from dosel.db.engine import transaction
from dosel.db.migrations import migrate
from dosel.db.tables import ANSWERS, FEEDBACK, PREDICTIONS, SHADOW_ANSWERS

CHUNK = 2_000

log = logging.getLogger(__name__)


def prune(engine: Engine, days: int, most_rows: int) -> int:
    """Delete answers that are older than `days` days, with the feedback on them; return how many.

    If more than nine tenths of `most_rows` are left in the prediction log, the oldest of them go, too: a full log takes
    no more answers.

    Answers in shadow are deleted alike. Labelled rows stay, since they hold classes and no features. Killed anywhere,
    the next call deletes the rest.

    Raises:
        WarehouseError: the data store cannot be reached, or failed.
    """
    migrate(engine)
    before = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=days)
    deleted = sum(_prune(engine, table, before) for table in (ANSWERS, PREDICTIONS, SHADOW_ANSWERS))
    log.info("answers from before %s deleted: %d", f"{before:%Y-%m-%d %H:%M} UTC ({days} days)", deleted)
    if beyond := _prune_beyond(engine, most_rows * 9 // 10):
        log.info("the oldest answers of a full log deleted: %d", beyond)
    return deleted + beyond


def _prune_beyond(engine: Engine, most: int) -> int:
    with transaction(engine) as connection:
        newest = connection.scalar(select(func.max(ANSWERS.c.id))) or 0
    return _delete(engine, ANSWERS, select(ANSWERS.c.id).where(ANSWERS.c.id <= newest - most).order_by(ANSWERS.c.id))


def _prune(engine: Engine, table: Table, before: datetime) -> int:
    oldest = select(table.c.id).where(table.c.at < before).order_by(table.c.at)
    if table is SHADOW_ANSWERS:
        return _delete(engine, table, oldest)
    with transaction(engine) as connection:
        use_cases = connection.scalars(select(table.c.use_case).distinct()).all()
    # By the index of use case and time.
    return sum(_delete(engine, table, oldest.where(table.c.use_case == use_case)) for use_case in use_cases)


def _delete(engine: Engine, table: Table, old: Select[int]) -> int:
    deleted = 0
    while True:
        with transaction(engine) as connection:
            ids = connection.scalars(old.limit(CHUNK)).all()
            if table is ANSWERS:
                connection.execute(delete(FEEDBACK).where(FEEDBACK.c.answer_id.in_(ids)))
            connection.execute(delete(table).where(table.c.id.in_(ids)))
        deleted += len(ids)
        if len(ids) < CHUNK:
            return deleted
