"""The table of shadow answers: repeated writes and deletion of old answers."""

import time

import pytest
from sqlalchemy import Engine, select

from dosel.db.tables import SHADOW_ANSWERS
from dosel.warehouse.retention import prune
from dosel.warehouse.shadow_answer import ShadowAnswer
from dosel.warehouse.shadow_answers import ShadowAnswerStore

DAY = 24 * 3600


def answer(name: str, latency: float = 1.0, days_ago: float = 0.0) -> ShadowAnswer:
    return ShadowAnswer("vf", 1, name, 1, time.time() - days_ago * DAY, '{"x":1.0}', 2, latency, None)


def stored(engine: Engine) -> list[tuple[str, float]]:
    with engine.connect() as connection:
        rows = connection.execute(select(SHADOW_ANSWERS.c.request_id, SHADOW_ANSWERS.c.latency)).all()
    return [(row.request_id, row.latency) for row in rows]


def test_an_answer_written_twice_is_one_row(engine: Engine) -> None:
    store = ShadowAnswerStore(engine)
    store.append([answer("a"), answer("b")])
    store.append([answer("a", latency=9.0), answer("c")])
    assert stored(engine) == [("a", 1.0), ("b", 1.0), ("c", 1.0)]


def test_old_shadow_answers_are_deleted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dosel.warehouse.retention.CHUNK", 2)
    ShadowAnswerStore(engine).append([*(answer(f"old-{i}", days_ago=91) for i in range(3)), answer("new", days_ago=89)])
    assert prune(engine, 90, 10_000_000) == 3
    assert [name for name, _ in stored(engine)] == ["new"]
