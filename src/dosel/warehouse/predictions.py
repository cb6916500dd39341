"""The prediction log: each answered row with its features and probabilities, and the version that answered."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Connection, Engine, func, select

from dosel.db.engine import insert_once_text, transaction
from dosel.db.migrations import migrate
from dosel.db.tables import ANSWERS
from dosel.errors import WarehouseError

COUNT_SECONDS = 10.0
"""How often the log's rows are counted."""


class AnswerRecord(NamedTuple):
    """One answered row.

    `request_id` is the server's and unique; `trace_id` is what the client called its request. The row is number
    `row_no`, from 1, of the request's `rows`. `at` is seconds since 1970. `features` are the row's values by name and
    `probabilities` each class's by label, both JSON; `features_key` is of `dosel.rows.hashing`. `answered` is the code
    of the class.
    """

    request_id: str
    row_no: int
    rows: int
    trace_id: str | None
    at: float
    use_case: str
    model: str
    version: int
    features: str
    features_key: int
    probabilities: str
    answered: int


class PredictionStore:
    """Adds to the log, up to about `most_rows` rows, estimated from the ids, of which a few have no row."""

    def __init__(self, engine: Engine, most_rows: int) -> None:
        self._engine = engine
        self._most_rows = most_rows
        self._counted_at = -COUNT_SECONDS
        self._migrated = False
        # As text, once: SQLAlchemy's own way with each row takes longer than the prediction took.
        self._insert = insert_once_text(engine.dialect, ANSWERS, AnswerRecord._fields)

    def append(self, records: Sequence[AnswerRecord]) -> None:
        """Stores all of them, or none.

        Raises:
            WarehouseError: the data store cannot be reached, or timed out; or the log is full.
            Exception: the data store does not accept one of them; the message may contain its values.
        """
        place = AnswerRecord._fields.index("at")
        rows = [(*r[:place], moment(r.at), *r[place + 1 :]) for r in records]
        if not self._migrated:
            migrate(self._engine)
            self._migrated = True
        with transaction(self._engine) as connection:
            self._check_room(connection)
            connection.exec_driver_sql(self._insert, rows)

    def _check_room(self, connection: Connection) -> None:
        if time.monotonic() < self._counted_at + COUNT_SECONDS:
            return
        # The first and the last id are each found in the primary key, whatever the log's size.
        first, last = connection.execute(select(func.min(ANSWERS.c.id), func.max(ANSWERS.c.id))).one()
        if first is not None and last - first >= self._most_rows:
            raise WarehouseError(
                f"the prediction log is full: {self._most_rows:,} rows (DOSEL_PREDICTION_ROWS); the next run of "
                "dosel_retention, or `dosel prune`, deletes the oldest"
            )
        self._counted_at = time.monotonic()


def moment(at: float) -> str:
    """Seconds since 1970 as UTC to the microsecond, as both data stores read it."""
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
