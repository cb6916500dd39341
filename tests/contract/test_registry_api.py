"""The endpoints that show Production and move it."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from mlflow import MlflowClient
from sqlalchemy import text

from app.main import create_app
from dosel.db.engine import connect
from dosel.model import tags
from dosel.registry.verdicts import Verdict
from dosel.rows import splits
from dosel.usecases import Approval
from dosel.usecases.covertype import COVERTYPE
from tests.contract.conftest import Installation
from tests.ledgers import drop_triggers

NAME = COVERTYPE.model_name
KEY = {"X-API-Key": "k" * 20}
HISTORY = f"/models/{NAME}/history"


def prepared(install: Callable[..., Installation]) -> Installation:
    """An installation with version 1 in Production, version 2 registered, and a key of ana."""
    made = install(in_production=True, promote_keys=f"ana:{'k' * 20},ben:{'b' * 20}")
    made.registry.register(COVERTYPE, made.good[1])
    return made


@pytest.fixture
def here(install: Callable[..., Installation]) -> Installation:
    return prepared(install)


@pytest.fixture
def api(here: Installation) -> Iterator[TestClient]:
    with TestClient(create_app(here.settings)) as client:
        yield client


@pytest.fixture(scope="module")
def refusing_api(install: Callable[..., Installation]) -> Iterator[TestClient]:
    """A client for refused requests, which all share one installation, since they change nothing."""
    with TestClient(create_app(prepared(install).settings)) as client:
        yield client


def answering(client: TestClient) -> Any:
    client.post("/warmup").raise_for_status()
    return client.post("/predict", json=COVERTYPE.example).json()["model"]["version"]


def test_promote_and_roll_back_change_the_version_that_answers(api: TestClient) -> None:
    assert answering(api) == 1
    entry = api.post(f"/models/{NAME}/promote", headers=KEY, json={"version": 2, "reason": "better"}).json()
    assert (entry["from_version"], entry["to_version"], entry["actor"]) == (1, 2, "API key ana")
    assert (entry["kind"], entry["reason"], entry["data_digest"]) == ("manual", "better", "0" * 64)
    assert entry["metrics_before"] == {"accuracy": 0.5}
    assert answering(api) == 2
    entry = api.post(f"/models/{NAME}/rollback", headers={"X-API-Key": "b" * 20}, json={}).json()
    assert (entry["to_version"], entry["actor"], entry["kind"]) == (1, "API key ben", "rollback")
    assert answering(api) == 1
    assert [e["to_version"] for e in api.get(HISTORY).json()["entries"]] == [1, 2, 1]


def test_a_version_without_a_manifest_is_not_loaded_and_the_loaded_version_answers(
    api: TestClient, here: Installation
) -> None:
    assert answering(api) == 1
    with connect(here.settings.warehouse_url).begin() as connection:
        drop_triggers(connection)
        connection.execute(text("DELETE FROM manifests WHERE version = 2"))
    here.registry.ledger.append(NAME, 2, "somebody with the data store's password", "why")
    response = api.post("/warmup")
    assert response.status_code == 503
    assert "version 2 has no manifest in the ledger" in response.json()["detail"]
    assert "version 1 keeps answering" in response.json()["detail"]
    assert api.post("/predict", json=COVERTYPE.example).json()["model"]["version"] == 1
    assert "no manifest" in api.get("/readyz").json()["use_cases"]["covertype"]["waiting_for"]
    assert api.get(f"/models/{NAME}/versions/2").json()["manifest"] is None
    response = api.post(f"/models/{NAME}/promote", headers=KEY, json={"version": 2, "reason": "x"})
    assert response.status_code == 409
    assert "dosel vouch" in response.json()["detail"]


def test_an_alias_moved_in_mlflow_is_followed_only_to_a_version_that_passed_the_gate(
    api: TestClient, here: Installation
) -> None:
    client, registry = MlflowClient(here.store), here.registry
    client.set_registered_model_alias(NAME, "production", "2")
    assert answering(api) == 1
    [note] = api.get(HISTORY).json()["notes"]
    assert "neither the gate nor a person let version 2 into Production" in note["text"]
    assert api.get("/models").json()["models"][0]["trouble"] == [note["text"]]
    registry.add_verdict(registry.version(NAME, 2), Verdict(True, "better", {}))
    client.set_registered_model_alias(NAME, "production", "2")
    assert answering(api) == 2
    assert api.get(HISTORY).json()["entries"][-1]["kind"] == "followed"
    unknown = client.create_model_version(NAME, str(client.get_model_version(NAME, "1").source), here.good[0])
    client.set_registered_model_alias(NAME, "production", unknown.version)
    assert answering(api) == 2
    assert "no manifest" in api.get(HISTORY).json()["notes"][-1]["text"]


@pytest.mark.soak
def test_a_familys_alias_moved_in_mlflow_is_put_back_and_changes_no_prediction(
    api: TestClient, here: Installation
) -> None:
    family = COVERTYPE.families[0].name
    client = MlflowClient(here.store)
    unknown = client.create_model_version(NAME, str(client.get_model_version(NAME, "1").source), here.strange)
    client.set_registered_model_alias(NAME, family, unknown.version)
    answer = api.post(f"/predict?model={family}", json=COVERTYPE.example).raise_for_status()
    assert answer.json()["model"]["version"] == 2
    here.registry.reconcile(NAME)
    assert client.get_registered_model(NAME).aliases[family] == 2
    assert here.registry.open_notes(NAME) == [
        f"the alias {family} was moved to version 3 outside dosel and is put back"
    ]


def test_an_alias_of_a_family_without_versions_names_no_version_of_another(api: TestClient, here: Installation) -> None:
    family = COVERTYPE.families[-1].name
    MlflowClient(here.store).set_registered_model_alias(NAME, family, "1")
    refused = api.post(f"/predict?model={family}", json=COVERTYPE.example)
    assert (refused.status_code, f"no model of the family {family}" in refused.text) == (503, True)


def test_metrics_edited_in_mlflow_are_not_shown(api: TestClient, here: Installation) -> None:
    client = MlflowClient(here.store)
    client.log_metric(here.good[0], "holdout_accuracy", 0.9999)
    for name, edited in (
        (tags.GATE, "passed"),
        (tags.GATE_REASON, "<script>alert(1)</script> [the best](http://evil.test)"),
        (tags.ROWS_TRAIN, "no JSON"),
        (tags.BATCH_IDS, "x" * 5000),
        (tags.DATA_DIGEST, "f" * 64),
    ):
        client.set_tag(here.good[0], name, edited)
    assert answering(api) == 1
    info = api.get("/model-info").json()["production"]
    [listed] = [v for v in api.get("/models").json()["models"][0]["versions"] if v["version"] == 1]
    detail = api.get(f"/models/{NAME}/versions/1").json()["version"]
    for shown in (info, listed, detail):
        assert shown["metrics"] == {"holdout_accuracy": 0.5, "test_accuracy": 0.5}
        assert shown["gate"] == {"verdict": None, "reason": None}
        assert (shown["lineage"]["rows_train"], shown["lineage"]["batch_ids"]) == (140, [1, 2])
        assert shown["lineage"]["data_digest"] == "0" * 64


@pytest.mark.parametrize(("headers", "status"), [({}, 401), ({"X-API-Key": "wrong"}, 401), ({"X-API-Key": "é"}, 401)])
@pytest.mark.parametrize("move", ["promote", "rollback"])
def test_promotion_and_rollback_need_a_key(refusing_api: TestClient, move: str, headers: Any, status: int) -> None:
    encoded = {name: value.encode() for name, value in headers.items()}
    response = refusing_api.post(f"/models/{NAME}/{move}", headers=encoded, json={"version": 2, "reason": "x"})
    assert response.status_code == status
    assert "X-API-Key" in response.json()["detail"]
    assert len(refusing_api.get(HISTORY).json()["entries"]) == 1


CHANGES = [f"/models/{NAME}/{end}" for end in ("promote", "rollback", "shadow/stop", "shadow/promote", "promote%0A")]


@pytest.mark.parametrize("path", CHANGES)
def test_the_body_of_a_change_is_not_read_without_the_key_of_a_promoter(refusing_api: TestClient, path: str) -> None:
    response = refusing_api.post(path, content=b"{not JSON", headers={"Content-Type": "application/json"})
    assert response.status_code == 401


@pytest.mark.parametrize("path", CHANGES)
def test_the_body_of_a_change_has_at_most_16_kb(refusing_api: TestClient, path: str) -> None:
    response = refusing_api.post(path, json={"reason": "x" * 17_000}, headers=KEY)
    assert response.status_code == 413
    assert "16,384 bytes" in response.json()["detail"]


def test_promotions_over_http_are_forbidden_without_promote_keys(install: Callable[..., Installation]) -> None:
    with TestClient(create_app(install().settings)) as client:
        response = client.post(f"/models/{NAME}/rollback", headers=KEY, json={})
        assert response.status_code == 403
        assert "neither DOSEL_KEYS nor DOSEL_PROMOTE_KEYS has a promoter" in response.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (f"/models/{NAME}/promote", {"version": 9, "reason": "x"}, 404, "no version 9"),
        ("/models/nobody/promote", {"version": 1, "reason": "x"}, 404, NAME),
        (f"/models/{NAME}/promote", {"version": 2}, 422, "reason: expected"),
        (f"/models/{NAME}/promote", {"version": 2, "reason": ""}, 422, "reason: expected"),
        (f"/models/{NAME}/promote", {"version": "two", "reason": "x"}, 422, "version: expected"),
        (f"/models/{NAME}/promote", {"version": 10**30, "reason": "x"}, 422, "version: expected"),
        (f"/models/{NAME}/promote", {"version": True, "reason": "x"}, 422, "version: expected"),
        (f"/models/{NAME}/rollback", {"to": 10**30}, 422, "to: expected"),
        (f"/models/{NAME}/promote", {"version": 2, "reason": "x", "force": True}, 422, "no field of this name"),
        (f"/models/{NAME}/rollback", {}, 409, "there is no earlier version"),
        (f"/models/{NAME}/rollback", {"to": 2}, 409, "was never in Production; choose one of 1"),
    ],
)
def test_a_refused_promotion_or_rollback_gets_the_reason(
    refusing_api: TestClient, path: str, body: Any, status: int, message: str
) -> None:
    response = refusing_api.post(path, headers=KEY, json=body)
    assert response.status_code == status
    assert message in response.json()["detail"]


@pytest.fixture
def two_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Covertype declares that two people must agree."""
    monkeypatch.setattr("dosel.registry.approvals.ALL", (replace(COVERTYPE, approval=Approval(people=2)),))


def test_a_promotion_waits_for_a_second_key(api: TestClient, two_people: None) -> None:
    body = {"version": 2, "reason": "better"}
    for _ in range(2):
        response = api.post(f"/models/{NAME}/promote", headers=KEY, json=body)
        assert response.status_code == 202
        assert (response.json()["approved_by"], response.json()["people"]) == (["ana"], 2)
    assert answering(api) == 1
    [waiting] = api.get(f"/models/{NAME}/approvals").json()["requests"]
    assert waiting == response.json()
    assert (waiting["version"], waiting["kind"], waiting["after"], waiting["actor"]) == (2, "manual", 1, "API key ana")
    response = api.post(f"/models/{NAME}/promote", headers={"X-API-Key": "b" * 20}, json=body | {"reason": "I agree"})
    assert response.status_code == 200
    entry = response.json()
    assert (entry["to_version"], entry["actor"], entry["reason"]) == (2, "API keys ana, ben", "better")
    assert api.get(f"/models/{NAME}/approvals").json()["requests"] == []
    assert answering(api) == 2


@pytest.mark.soak
def test_a_rollback_needs_one_key_and_voids_requests(api: TestClient, here: Installation, two_people: None) -> None:
    for key in ("k", "b"):
        api.post(f"/models/{NAME}/promote", headers={"X-API-Key": key * 20}, json={"version": 2, "reason": "better"})
    entry = api.post(f"/models/{NAME}/rollback", headers=KEY, json={}).raise_for_status().json()
    assert (entry["to_version"], entry["actor"]) == (1, "API key ana")
    # Ben's approval was for the entry that is past.
    response = api.post(f"/models/{NAME}/promote", headers=KEY, json={"version": 2, "reason": "again"})
    assert response.status_code == 202
    assert response.json()["approved_by"] == ["ana"]


def test_the_approvals_of_an_unknown_model_are_not_found(api: TestClient) -> None:
    assert api.get("/models/nobody/approvals").status_code == 404
    assert api.get(f"/models/{NAME}/approvals").json() == {"model": NAME, "requests": []}


def test_an_alias_moved_in_mlflow_is_not_followed_where_people_must_agree(
    api: TestClient, here: Installation, two_people: None
) -> None:
    here.registry.add_verdict(here.registry.version(NAME, 2), Verdict(True, "better", {}))
    MlflowClient(here.store).set_registered_model_alias(NAME, "production", "2")
    assert answering(api) == 1
    assert "needs the approval of people" in api.get(HISTORY).json()["notes"][-1]["text"]


def test_history_with_at_shows_the_version_in_production_then(api: TestClient, here: Installation) -> None:
    before = datetime.now(UTC)
    here.registry.promote(here.registry.version(NAME, 2), "me", "why")
    assert api.get(HISTORY).json()["production"] == 2
    assert api.get(HISTORY, params={"at": before.isoformat()}).json()["production"] == 1
    long_ago = api.get(HISTORY, params={"at": "2020-01-01"}).json()
    assert (long_ago["production"], long_ago["entries"]) == (None, [])
    in_another_zone = (before + timedelta(hours=5)).isoformat().replace("+00:00", "+05:00")
    assert api.get(HISTORY, params={"at": in_another_zone}).json()["production"] == 1
    for extreme, version in (("0001-01-01T00:00:00+23:59", None), ("9999-12-31T23:59:59-23:59", 2)):
        assert api.get(HISTORY, params={"at": extreme}).json()["production"] == version
    for other in ("yesterday", ""):
        response = api.get(HISTORY, params={"at": other})
        assert response.status_code == 422
        assert "2026-11-21T03:00:00Z" in response.json()["detail"]
    assert api.get("/models/nobody/history").status_code == 404


@pytest.mark.soak
def test_the_history_is_available_as_csv(api: TestClient, here: Installation) -> None:
    here.registry.promote(here.registry.version(NAME, 2), "me", 'a "reason",\nof two lines')
    for asked in ({"params": {"format": "csv"}}, {"headers": {"Accept": "text/csv"}}):
        response = api.get(HISTORY, **asked)
        assert response.headers["content-type"].startswith("text/csv")
        assert f"{NAME}-history.csv" in response.headers["content-disposition"]
        lines = list(csv.DictReader(io.StringIO(response.text, newline="")))
        assert [(line["sequence"], line["from_version"], line["to_version"]) for line in lines] == [
            ("1", "", "1"),
            ("2", "1", "2"),
        ]
        assert lines[1]["reason"] == 'a "reason",\nof two lines'


def test_a_version_shows_its_whole_lineage(api: TestClient, here: Installation) -> None:
    detail = api.get(f"/models/{NAME}/versions/1").raise_for_status().json()
    assert (detail["model"], detail["use_case"], detail["version"]["run_id"]) == (NAME, "covertype", here.good[0])
    assert detail["version"]["lineage"]["batch_ids"] == [1, 2]
    assert "model.skops" in detail["manifest"]["files"]
    assert [entry["sequence"] for entry in detail["in_production"]] == [1]
    assert detail["in_production"][0]["manifest_digest"] == detail["manifest"]["digest"]
    assert api.get(f"/models/{NAME}/versions/2").json()["in_production"] == []
    assert api.get(f"/models/{NAME}/versions/9").status_code == 404
    assert api.get(f"/models/{NAME}/versions/zero").status_code == 422


@pytest.mark.soak
@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({}, "application/json"),
        ({"params": {"format": "md"}}, "text/markdown; charset=utf-8"),
        ({"headers": {"Accept": "text/markdown"}}, "text/markdown; charset=utf-8"),
        ({"params": {"format": "cyclonedx"}}, "application/vnd.cyclonedx+json"),
        ({"headers": {"Accept": "application/vnd.cyclonedx+json"}}, "application/vnd.cyclonedx+json"),
        ({"headers": {"Accept": "text/markdown"}, "params": {"format": "json"}}, "application/json"),
    ],
)
def test_a_versions_card_is_available_in_each_format(api: TestClient, asked: dict[str, Any], kind: str) -> None:
    response = api.get(f"/models/{NAME}/versions/1/card", **asked).raise_for_status()
    assert response.headers["content-type"] == kind
    assert NAME in response.text


def test_a_card_shows_the_ledgers_figures_and_none_that_were_edited_in_mlflow(
    api: TestClient, here: Installation
) -> None:
    MlflowClient(here.store).log_metric(here.good[0], "holdout_accuracy", 0.9999)
    card = api.get(f"/models/{NAME}/versions/1/card").raise_for_status().json()
    assert (card["model"], card["version"], card["gate"]) == (NAME, 1, None)
    assert card["lineage"]["MLflow run"] == here.good[0]
    assert card["files"].keys() >= {"model.skops"}
    assert 0.9999 not in [figure["value"] for figure in card["figures"]]
    assert api.get(f"/models/{NAME}/versions/99/card").status_code == 404
    assert api.get("/models/nobody/versions/1/card").status_code == 404
    assert api.get(f"/models/{NAME}/versions/1/card?format=pdf").status_code == 422


def test_the_looks_at_the_holdout_that_are_left_are_shown(api: TestClient, here: Installation) -> None:
    figures = {"accuracy": 0.8}
    report = {
        "champion": 1,
        "metrics": {"challenger": figures, "production": figures},
        "split": splits.split_version(COVERTYPE),
        "rows": 100,
    }
    assert answering(api) == 1
    here.registry.add_verdict(here.registry.version(NAME, 2), Verdict(False, "not better", report))
    expected = {"epoch": 0, "looks": 1, "left": 99}
    assert api.get(HISTORY).json()["holdout"] == expected
    assert api.get("/model-info").json()["holdout"] == expected
