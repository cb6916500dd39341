"""The prediction log in each kind of warehouse."""

import pytest
from sqlalchemy import Engine, select

from dosel.db.tables import PREDICTIONS
from dosel.warehouse.predictions import PredictionRecord, PredictionStore

pytestmark = pytest.mark.storage


def test_requests_and_answers_are_logged_unchanged(engine: Engine) -> None:
    asked = '{"Wilderness_Area":"Commanche","Slope":"100 %","Soil_Type":"C\\\\7102 ñ"}'
    one = PredictionRecord("r-1", 1_700_000_000.25, "covertype", "modelo_covertype_vf", 3, 1, asked, "2")
    batch = PredictionRecord("r-2", 1_700_000_001.5, "covertype", "modelo_covertype_vf", 3, 7, "f" * 64, '{"2": 7}')
    store = PredictionStore(engine)
    store.append([one, batch])
    store.append([one._replace(request_id="r-3")])
    with engine.connect() as connection:
        found = {row["request_id"]: row for row in connection.execute(select(PREDICTIONS)).mappings()}
    assert found.keys() == {"r-1", "r-2", "r-3"}
    for record in (one, batch):
        row = found[record.request_id]
        assert [row[name] for name in record._fields if name != "at"] == [
            v for n, v in zip(record._fields, record, strict=True) if n != "at"
        ]
        assert row["at"].timestamp() % 1 == record.at % 1
