"""The prediction log: what was asked, what was answered, by which version, when."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, insert

from dosel.warehouse.engine import transaction
from dosel.warehouse.tables import PREDICTIONS, create


@dataclass(frozen=True)
class PredictionRecord:
    """One request that was answered.

    `asked` is the row as it was received, JSON; for a batch of `rows`, the SHA-256 of its body. `answered` is the
    code of the class; for a batch, how often each was answered, as JSON. `at` is UTC, without a time zone.
    """

    request_id: str
    at: datetime
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
        self._made = False

    def append(self, records: Sequence[PredictionRecord]) -> None:
        """Stores all of them, or none.

        Raises:
            WarehouseError: the data store cannot be reached, or gave up.
        """
        with transaction(self._engine) as connection:
            if not self._made:
                create(connection, PREDICTIONS)
            connection.execute(insert(PREDICTIONS), [vars(record) for record in records])
        self._made = True
