"""The labelled rows by which a canary is judged, as the data store has them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select

from dosel.db.engine import transaction
from dosel.db.migrations import migrate
from dosel.db.tables import ANSWERS, FEEDBACK
from dosel.monitor.canary import Draw
from dosel.monitor.pairs import PairStore
from dosel.registry.shadows import ShadowRecord
from dosel.usecases import Shadow
from dosel.usecases.covertype import COVERTYPE

START = datetime(2026, 1, 1, tzinfo=UTC)
SHADOW = ShadowRecord("vf", 1, "challenger", 2, "run", 1, 1, START, START + timedelta(days=1), "a test", "a test")


@pytest.mark.storage
@pytest.mark.parametrize("feature", [COVERTYPE.numbers[0], COVERTYPE.categories[1]], ids=lambda feature: feature.name)
def test_the_first_labelled_row_of_each_value_counts_for_its_version(engine: Engine, feature: Any) -> None:
    migrate(engine)
    draw = Draw.of(COVERTYPE, Shadow(share=0.5, sticky_by=feature.name), SHADOW)
    assert draw is not None
    values = list(getattr(feature, "values", range(2_000, 2_030)))[:30]
    version = {value: 2 if draw.takes(draw.logged(value) or 0) else 1 for value in values}
    label(engine, feature.name, [(value, version[value], 1, place) for place, value in enumerate(values)])
    # None of these counts: a second row, one of a bulk request, one of a named version, and one without the value.
    [first, *_] = values
    label(engine, feature.name, [(first, version[first], 1, 99), (first, version[first], 2, 99)])
    label(engine, feature.name, [(value, 3 - version[value], 1, 99) for value in values])
    label(engine, feature.name, [(None, 1, 1, 99)])
    arms = PairStore(engine).arms(SHADOW, draw)
    for arm, number in zip(arms, (2, 1), strict=True):
        assert arm.answered.tolist() == [place for place, value in enumerate(values) if version[value] == number]
        assert 5 < len(arm.truth) < 25


def label(
    engine: Engine,
    feature: str,
    rows: list[tuple[object, int, int, int]],
    model: str = "vf",
    when: datetime = START + timedelta(hours=1),
) -> None:
    """Log answers and their feedback: the feature's value, the version, the rows of the request, the answered class."""
    at = when.replace(tzinfo=None)
    with transaction(engine) as connection:
        for value, version, count, answered in rows:
            features = json.dumps(COVERTYPE.example | {feature: value})
            known = {"trace_id": None, "at": at, "use_case": "covertype", "model": model, "features_key": 1}
            request = f"{connection.scalar(select(func.count()).select_from(ANSWERS))}"
            row = {"request_id": request, "row_no": 1, "rows": count, "version": version, "probabilities": "{}"}
            given = known | row | {"features": features, "answered": answered}
            [answer] = connection.execute(insert(ANSWERS).values(given)).inserted_primary_key or [0]
            feedback = {
                "answer_id": answer,
                "at": at,
                "delay": 1.0,
                "truth": 1,
                "source": "feedback",
                "reference": "test",
            }
            connection.execute(insert(FEEDBACK).values(feedback))
