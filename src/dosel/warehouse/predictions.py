"""The prediction log: what was asked, what was answered, by which version, when."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Engine

from dosel.db.engine import insert_text, transaction
from dosel.db.migrations import migrate
from dosel.db.tables import PREDICTIONS


class PredictionRecord(NamedTuple):
    """One request that was answered.

    `at` is seconds since 1970. `asked` is the row as it was received, JSON; for a batch of `rows`, the SHA-256 of its
    body. `answered` is the code of the class; for a batch, how often each was answered, as JSON.
    """

    request_id: str
    at: float
    use_case: str
    model: str
    version: int
    rows: int
    asked: str
    answered: str


class PredictionStore:
    """Adds to the log."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._migrated = False
        # As text, once: SQLAlchemy's own way with each row takes longer than the prediction took.
        self._insert = insert_text(engine.dialect, PREDICTIONS, PredictionRecord._fields)

    def append(self, records: Sequence[PredictionRecord]) -> None:
        """Stores all of them, or none.

        Raises:
            WarehouseError: the data store cannot be reached, or timed out.
        """
        rows = [(r.request_id, _moment(r.at), *r[2:]) for r in records]
        if not self._migrated:
            migrate(self._engine)
            self._migrated = True
        with transaction(self._engine) as connection:
            connection.exec_driver_sql(self._insert, rows)


def _moment(at: float) -> str:
    """UTC to the microsecond, as both data stores read it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
