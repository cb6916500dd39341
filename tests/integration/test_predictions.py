"""The prediction log in each kind of data store."""

import pytest
from sqlalchemy import Engine, select

from dosel.db.tables import ANSWERS
from dosel.warehouse.predictions import AnswerRecord, PredictionStore

pytestmark = pytest.mark.storage

FEATURES = '{"Wilderness_Area":"Commanche","Slope":"100 %","Soil_Type":"C\\\\7102 ñ"}'
ONE = AnswerRecord("r-1", 1, 1, None, 1_700_000_000.25, "covertype", "vf", 3, FEATURES, -(2**63), '{"Aspen":1.0}', 2)


def test_an_answer_is_stored_unchanged(engine: Engine) -> None:
    rows = [ONE._replace(request_id="r-2", row_no=row, rows=7, trace_id="theirs", at=1.5) for row in (1, 5)]
    store = PredictionStore(engine, 10_000_000)
    store.append([ONE, rows[0]])
    store.append([rows[1]])
    with engine.connect() as connection:
        found = connection.execute(select(ANSWERS).order_by(ANSWERS.c.id)).mappings().all()
    for row, record in zip(found, (ONE, *rows), strict=True):
        stored = AnswerRecord(**{name: row[name] for name in record._fields})
        assert stored.at.timestamp() % 1 == record.at % 1  # type: ignore[attr-defined]
        assert stored._replace(at=record.at) == record


def test_a_row_of_a_request_is_stored_once(engine: Engine) -> None:
    store = PredictionStore(engine, 10_000_000)
    store.append([ONE])
    store.append([ONE._replace(answered=3), ONE._replace(row_no=2)])
    with engine.connect() as connection:
        assert [tuple(row) for row in connection.execute(select(ANSWERS.c.row_no, ANSWERS.c.answered))] == [
            (1, 2),
            (2, 2),
        ]
