"""`POST /feedback`: each truth counts once, and a request is stored completely or not at all."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app.routes import feedback
from app.serving.work_queue import SharedCalls
from dosel.db.engine import connect
from dosel.db.tables import FEEDBACK, TRUTHS
from dosel.monitor import health
from tests.contract.conftest import Installation
from tests.contract.test_api import EXAMPLE, serving, version_of, wait_until
from tests.contract.test_serving import Install

URL = "/feedback/covertype"
KEY = {"X-API-Key": "k" * 16}


@pytest.fixture(scope="module")
def here(install: Install) -> Installation:
    made: Installation = install(in_production=True, predict_keys=f"a client:{KEY['X-API-Key']}", logged_batch_rows=5)
    return made


@pytest.fixture(scope="module")
def client(here: Installation) -> Iterator[TestClient]:
    with serving(here.settings) as client:
        client.headers.update(KEY)
        wait_until(lambda: version_of(client) == 1)
        yield client


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between lookups of unknown ids; the log writes its queue within a second."""
    monkeypatch.setattr(feedback, "ATTEMPTS", 20)
    monkeypatch.setattr(feedback, "PAUSE_SECONDS", 0.1)


def ask(client: TestClient) -> str:
    """Request a prediction and return its request id."""
    return str(client.post("/predict", json=EXAMPLE).raise_for_status().headers["x-dosel-request-id"])


def ask_batch(client: TestClient, rows: int) -> str:
    answer = client.post("/predict/covertype/batch", json=[EXAMPLE] * rows)
    return str(answer.raise_for_status().headers["x-dosel-request-id"])


def counts(answer: Any) -> tuple[int, int, int, int]:
    receipt = answer.raise_for_status().json()
    return receipt["accepted"], receipt["already_known"], receipt["joined"], receipt["not_logged"]


def stored(here: Installation) -> tuple[int, int]:
    """The numbers of feedback rows and labelled rows."""
    with connect(here.settings.warehouse_url).connect() as connection:
        rows = connection.scalar(select(func.count()).select_from(FEEDBACK))
        return rows or 0, connection.scalar(select(func.coalesce(func.sum(TRUTHS.c.rows), 0))) or 0


def test_truth_is_accepted_right_after_the_answer_and_counts_once(client: TestClient, here: Installation) -> None:
    name, before = ask(client), stored(here)
    assert counts(client.post(URL, json=[{"request_id": name, "truth": 2}])) == (1, 0, 0, 0)
    assert counts(client.post(URL, json=[{"request_id": name, "truth": 2, "row": 1}] * 2)) == (0, 2, 0, 0)
    assert stored(here) == (before[0] + 1, before[1] + 1)


def test_truth_about_the_version_in_production_counts_for_its_health(client: TestClient) -> None:
    names = [ask(client) for _ in range(3)]
    path = "/use-cases/covertype/health"
    before = client.get(path).raise_for_status().json()
    client.post(URL, json=[{"request_id": name, "truth": 3} for name in names]).raise_for_status()
    after = client.get(path).json()
    assert after["labels"] == before["labels"] + 3
    assert after["coverage"]["labelled"] == before["coverage"]["labelled"] + 3
    assert after["coverage"]["share"] == after["coverage"]["labelled"] / after["coverage"]["answers"]
    assert 0 <= after["coverage"]["delay_median"] <= after["coverage"]["delay_p90"] < 60


def test_forty_requests_for_the_health_share_the_work_of_two(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, began, released = list[int](), threading.Event(), threading.Event()
    look = health.health

    def slow(*given: Any, **named: Any) -> Any:
        looks.append(1)
        began.set()
        released.wait(60)
        return look(*given, **named)

    monkeypatch.setattr(health, "health", slow)
    asked, entered = SharedCalls.run, list[int]()

    async def counted(*given: Any) -> Any:
        entered.append(1)
        return await asked(*given)

    monkeypatch.setattr(SharedCalls, "run", counted)
    with ThreadPoolExecutor(40) as pool:
        path = "/use-cases/covertype/health"
        first = pool.submit(client.get, path)
        assert began.wait(60)
        others = [pool.submit(client.get, path) for _ in range(39)]
        wait_until(lambda: len(entered) == 40)
        released.set()
        assert {one.result().status_code for one in (first, *others)} == {200}
    assert len(looks) == 2


def test_the_documentation_says_how_many_points_the_course_has(client: TestClient) -> None:
    course = client.get("/openapi.json").json()["components"]["schemas"]["HealthInfo"]["properties"]["course"]
    assert f"at most {health.COURSE_POINTS} points" in course["description"]


@pytest.mark.parametrize("truth", [2, "2", 2.0, "Lodgepole Pine", " lodgepole pine "])
def test_a_class_may_be_sent_as_its_code_or_label(client: TestClient, truth: Any) -> None:
    name = ask(client)
    assert counts(client.post(URL, json=[{"request_id": name, "truth": truth}])) == (1, 0, 0, 0)
    assert counts(client.post(URL, json=[{"request_id": name, "truth": 2}])) == (0, 1, 0, 0)


@pytest.mark.parametrize("truth", [0, 8, 2.5, "Bonsai", "", None, True, [2], "NaN", 10**400])
def test_an_unknown_class_is_refused_with_the_known_classes(client: TestClient, here: Installation, truth: Any) -> None:
    good, bad, before = ask(client), ask(client), stored(here)
    rows = [{"request_id": good, "truth": 2}, {"request_id": bad, "truth": truth}]
    answer = client.post(URL, content=json.dumps(rows))
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert (error["row"], error["field"]) == (2, "truth")
    assert "Lodgepole Pine" in error["expected"]
    assert stored(here) == before


def test_a_contradicting_truth_is_refused_with_its_whole_request(client: TestClient, here: Installation) -> None:
    first, second = ask(client), ask(client)
    client.post(URL, json=[{"request_id": first, "truth": 2}]).raise_for_status()
    before = stored(here)
    rows = [{"request_id": second, "truth": 2}, {"request_id": first, "truth": 3}]
    answer = client.post(URL, json=rows)
    assert answer.status_code == 409
    assert first in answer.json()["detail"]
    assert second not in answer.json()["detail"]
    assert client.post(URL, json=[*rows[:1], rows[0] | {"truth": 3}]).status_code == 409
    assert stored(here) == before


def test_an_unknown_request_id_is_refused_with_its_whole_request(
    client: TestClient, here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = ask(client)
    client.post(URL, json=[{"request_id": name, "truth": 2}]).raise_for_status()
    known, before = ask_batch(client, 3), stored(here)
    not_yet = f"{'0' * 8}-{'0' * 32}"
    for unknown, row, may_come in (("nothing-1", 1, False), (known, 4, False), (not_yet, 1, True)):
        rows = [{"request_id": known, "truth": 2}, {"request_id": unknown, "truth": 2, "row": row}]
        answer = client.post(URL, json=rows)
        assert answer.status_code == 404
        assert f"{unknown} row {row}" in answer.json()["detail"]
        assert ("send the X-Dosel-Request-ID" in answer.json()["detail"]) == (unknown == "nothing-1")
        assert (int(answer.headers.get("retry-after", 0)) > 0) == may_come
    assert client.post("/feedback/penguins", json=[{"request_id": name, "truth": "Gentoo"}]).status_code == 404
    assert stored(here) == before


def test_rows_of_a_batch_that_were_not_logged_are_counted(client: TestClient) -> None:
    name = ask_batch(client, 11)
    rows = [{"request_id": name, "row": row, "truth": 2} for row in range(1, 12)]
    assert counts(client.post(URL, json=rows)) == (3, 0, 0, 8)


def test_feedback_as_csv_equals_feedback_as_json(client: TestClient) -> None:
    name, batch = ask(client), ask_batch(client, 2)
    headers = {"Content-Type": "text/csv"}
    text = f"Truth;note;ROW;Request_ID\n2;x;;{name}\nAspen;;2;{batch}\n"
    assert counts(client.post(URL, content=text, headers=headers)) == (2, 0, 0, 0)
    again = [{"request_id": name, "truth": 2}, {"request_id": batch, "row": 2, "truth": "Aspen"}]
    assert counts(client.post(URL, json=again)) == (0, 2, 0, 0)


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"[", 400),
        ("application/json", b"\xff", 400),
        ("application/json", b"[" * 100_000, 400),
        ("application/json", b"{}", 422),
        ("application/json", b"[]", 422),
        ("application/json", b"[1]", 422),
        ("application/json", b'[{"request_id":"a"}]', 422),
        ("application/json", b'[{"request_id":"a","truth":2,"rows":1}]', 422),
        ("application/json", b'[{"request_id":"a","truth":2,"row":0}]', 422),
        ("application/json", b'[{"request_id":"a","truth":2,"row":true}]', 422),
        ("application/json", b'[{"request_id":"a","truth":2,"row":9999999999}]', 422),
        ("application/json", b'[{"request_id":"' + b"a" * 65 + b'","truth":2}]', 422),
        ("text/csv", b"", 400),
        ("text/csv", b"request_id\na\n", 422),
        ("text/csv", b'request_id,truth\n"a,2\n', 400),
        ("text/csv", b"request_id,truth\na,2,3\n", 422),
        ("text/csv", b"request_id,truth\n", 422),
        ("text/plain", b"a", 415),
    ],
)
def test_invalid_feedback_is_refused_with_the_reason(client: TestClient, kind: str, body: bytes, status: int) -> None:
    answer = client.post(URL, content=body, headers={"Content-Type": kind})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["detail"]


def test_feedback_needs_the_same_key_as_predictions(client: TestClient) -> None:
    assert client.post(URL, json=[], headers={"X-API-Key": "another"}).status_code == 401
    assert client.post("/feedback/nothing", json=[]).status_code == 404
