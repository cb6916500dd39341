"""Answers of versions in shadow, each beside the champion's answer in the prediction log."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Engine, select

from dosel.db.engine import insert_once_text, transaction
from dosel.db.migrations import migrate
from dosel.db.tables import ANSWERS, FEEDBACK, SHADOW_ANSWERS
from dosel.warehouse.predictions import moment
from dosel.warehouse.shadow_answer import ShadowAnswer

NEWEST = 10_000


class ShadowAnswerStore:
    """Adds to the table."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._migrated = False
        # As text, as in `PredictionStore`.
        self._insert = insert_once_text(engine.dialect, SHADOW_ANSWERS, ShadowAnswer._fields)

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


class Disagreement(NamedTuple):
    """A row that the champion and a version in shadow answered with different classes, given as codes.

    `features` are the row's values by name; `truth` is None while it is unknown.
    """

    request_id: str
    row_no: int
    at: datetime
    features: dict[str, float | str | None]
    champion: int
    shadow: int
    truth: int | None


def disagreements(engine: Engine, model: str, number: int, limit: int) -> list[Disagreement]:
    """The newest rows on which a shadow disagrees, newest first, among its newest 10,000 answers.

    Raises:
        WarehouseError: the data store cannot be reached, or failed.
    """
    migrate(engine)
    mine, answers = SHADOW_ANSWERS.c, ANSWERS.c
    newest = (
        select(mine.id, mine.request_id, mine.row_no, mine.answered)
        .where(mine.model == model, mine.number == number)
        .order_by(mine.id.desc())
        .limit(NEWEST)
        .subquery()
    )
    columns = (answers.at, answers.features, answers.answered.label("champion"), FEEDBACK.c.truth)
    query = (
        select(newest.c.request_id, newest.c.row_no, newest.c.answered, *columns)
        .join_from(newest, ANSWERS, (answers.request_id == newest.c.request_id) & (answers.row_no == newest.c.row_no))
        .outerjoin(FEEDBACK, FEEDBACK.c.answer_id == answers.id)
        .where(answers.answered != newest.c.answered)
        .order_by(newest.c.id.desc())
        .limit(limit)
    )
    with transaction(engine) as connection:
        return [
            Disagreement(
                row.request_id,
                row.row_no,
                row.at.replace(tzinfo=UTC),
                json.loads(row.features),
                row.champion,
                row.answered,
                row.truth,
            )
            for row in connection.execute(query)
        ]
