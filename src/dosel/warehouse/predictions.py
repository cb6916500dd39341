"""The prediction log: each answered row with its features and probabilities, and the version that answered."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Engine

from dosel.db.engine import insert_once_text, transaction
from dosel.db.migrations import migrate
from dosel.db.tables import ANSWERS


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
    """Adds to the log."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._migrated = False
        # As text, once: SQLAlchemy's own way with each row takes longer than the prediction took.
        self._insert = insert_once_text(engine.dialect, ANSWERS, AnswerRecord._fields)

    def append(self, records: Sequence[AnswerRecord]) -> None:
        """Stores all of them, or none.

        Raises:
            WarehouseError: the data store cannot be reached, or timed out.
            Exception: the data store does not accept one of them; the message may contain its values.
        """
        place = AnswerRecord._fields.index("at")
        rows = [(*r[:place], moment(r.at), *r[place + 1 :]) for r in records]
        if not self._migrated:
            migrate(self._engine)
            self._migrated = True
        with transaction(self._engine) as connection:
            connection.exec_driver_sql(self._insert, rows)


def moment(at: float) -> str:
    """Seconds since 1970 as UTC to the microsecond, as both data stores read it."""
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
