"""Answers of versions in shadow, each beside the champion's answer in the prediction log."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Engine

from dosel.db.engine import insert_text, transaction
from dosel.db.migrations import migrate
from dosel.db.tables import SHADOW_ANSWERS
from dosel.warehouse.predictions import moment

_KEEP_THE_FIRST = {"sqlite": "ON CONFLICT DO NOTHING", "mysql": "ON DUPLICATE KEY UPDATE id = id"}
"""After a write whose success was lost on the way, the same rows are written again."""


class ShadowAnswer(NamedTuple):
    """The answer of a model's shadow `number` to row `row_no`, from 1, of a request.

    `at` is seconds since 1970. `probabilities` are each class's by label, as JSON, and `answered` is the code of the
    class. `latency` and the champion's are milliseconds of processor time; the champion's is None for rows of a bulk
    request.
    """

    model: str
    number: int
    request_id: str
    row_no: int
    at: float
    probabilities: str
    answered: int
    latency: float
    champion_latency: float | None


class ShadowAnswerStore:
    """Adds to the table."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._migrated = False
        # As text, as in `PredictionStore`.
        insert = insert_text(engine.dialect, SHADOW_ANSWERS, ShadowAnswer._fields)
        self._insert = f"{insert} {_KEEP_THE_FIRST[engine.dialect.name]}"

    def append(self, answers: Sequence[ShadowAnswer]) -> None:
        """Store all of them, or none. An answer that is stored already stays as it is.

        Raises:
            WarehouseError: the data store cannot be reached, or timed out.
        """
        if not self._migrated:
            migrate(self._engine)
            self._migrated = True
        place = ShadowAnswer._fields.index("at")
        rows = [(*a[:place], moment(a.at), *a[place + 1 :]) for a in answers]
        with transaction(self._engine) as connection:
            connection.exec_driver_sql(self._insert, rows)
