"""Explanations over HTTP: one model for the whole answer, and the same refusals as predictions."""

import csv
import gc
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from weakref import ref

import pytest
from fastapi.testclient import TestClient

from app.main import build_app
from app.serving.follower import ModelFollower
from dosel.db.engine import connect
from dosel.errors import WarehouseError
from dosel.quality import check
from dosel.registry.registry import Registry
from dosel.settings import Settings
from dosel.sources.base import Batch
from dosel.usecases import ALL, DEFAULT, UseCase
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore
from external.columns import as_words
from external.generator import generate
from tests.contract.conftest import Installation
from tests.contract.test_api import (
    EXAMPLE,
    JSON,
    NAME,
    PROBLEM,
    UNACCEPTABLE,
    Install,
    running,
    serving,
    version_of,
    wait_until,
)

PATH = f"/explain/{COVERTYPE.name}"


@pytest.fixture(scope="module")
def installed(install: Install) -> Installation:
    return install(in_production=True)


@pytest.fixture(scope="module")
def api(installed: Installation) -> Iterator[TestClient]:
    with serving(installed.settings) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        yield client


def test_an_explanation_belongs_to_the_prediction_and_names_its_model(api: TestClient) -> None:
    predicted = api.post("/predict", json=EXAMPLE).json()
    found = api.post(PATH, json=EXAMPLE).raise_for_status().json()
    assert {name: found[name] for name in predicted} == predicted
    parts = found["contributions"]
    assert (parts["label"], parts["exact"], parts["unit"]) == (predicted["label"], True, "probability")
    assert parts["output"] == pytest.approx(predicted["probabilities"][predicted["label"]], abs=1e-6)
    assert parts["base"] + sum(c["contribution"] for c in parts["features"]) == pytest.approx(parts["output"])
    titles = {feature.name: feature.title for feature in COVERTYPE.features}
    assert {c["feature"]: c["title"] for c in parts["features"]} == titles
    assert {c["feature"]: c["value"] for c in parts["features"]} == EXAMPLE


def test_slow_contributions_can_be_left_out(api: TestClient) -> None:
    whole, found = (
        api.post(PATH, params={"contributions": wanted}, json=EXAMPLE).raise_for_status().json()
        for wanted in (True, False)
    )
    assert found.pop("contributions") is None
    del whole["contributions"]
    assert found == whole


@pytest.mark.parametrize("count", [1, 5, 50])
def test_the_nearest_rows_are_listed_with_their_classes_and_positions(api: TestClient, count: int) -> None:
    found = api.post(PATH, params={"neighbours": count}, json=EXAMPLE).raise_for_status().json()
    near = found["neighbours"]
    assert len(near) == count
    assert [n["distance"] for n in near] == sorted(n["distance"] for n in near)
    assert all(n["label"] == COVERTYPE.target.labels[n["prediction"]] for n in near)
    assert all(list(n["row"]) == list(COVERTYPE.feature_names) for n in near)
    assert all(isinstance(n["row"][COVERTYPE.numbers[0].name], int) for n in near)
    # The picture contains all 200 training rows, and so the neighbours.
    pictured = [(point["x"], point["y"], point["label"]) for point in found["projection"]["sample"]]
    assert len(pictured) == 200
    assert {(n["x"], n["y"], n["label"]) for n in near} <= set(pictured)


def test_other_spellings_of_a_value_get_the_same_explanation(api: TestClient) -> None:
    answers = [api.post(PATH, json=EXAMPLE | {"Soil_Type": soil}).json() for soil in ("C7102", " c7102 ")]
    for answer in answers:
        del answer["contributions"]["seconds"]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("case", UNACCEPTABLE)
def test_explain_refuses_a_body_with_the_same_error_as_predict(api: TestClient, case: str) -> None:
    body = UNACCEPTABLE[case][0]
    answers = [api.post(path, content=body, headers=JSON) for path in (f"/predict/{COVERTYPE.name}", PATH)]
    assert [answer.status_code for answer in answers] == [422, 422]
    for name in ("detail", "errors"):
        assert answers[0].json()[name] == answers[1].json()[name]


@pytest.mark.parametrize(
    ("path", "content", "content_type", "status", "message"),
    [
        (PATH, '{"Slope": 1,', "application/json", 400, "at line 1"),
        (PATH, json.dumps(EXAMPLE | {"Soil_Type": "x" * 70_000}), "application/json", 400, "longer than 65,536"),
        (PATH, json.dumps(EXAMPLE), "text/plain", 415, "Content-Type: application/json"),
        (PATH, " " * 2_000_000, "application/json", 413, "1,000,000 bytes"),
        (f"{PATH}?model=nobody", json.dumps(EXAMPLE), "application/json", 404, NAME),
        ("/explain/nothing", json.dumps(EXAMPLE), "application/json", 404, COVERTYPE.name),
        (f"{PATH}?neighbours=0", json.dumps(EXAMPLE), "application/json", 422, "greater than or equal to 1"),
        (f"{PATH}?neighbours=51", json.dumps(EXAMPLE), "application/json", 422, "less than or equal to 50"),
        (f"{PATH}?neighbours=few", json.dumps(EXAMPLE), "application/json", 422, "a valid integer"),
        (f"{PATH}?version=7", json.dumps(EXAMPLE), "application/json", 409, "predict again"),
    ],
)
def test_every_refusal_is_a_problem_document(
    api: TestClient, path: str, content: str, content_type: str, status: int, message: str
) -> None:
    response = api.post(path, content=content, headers={"Content-Type": content_type})
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)
    assert message in response.json()["detail"]


def test_a_request_can_name_the_version_to_explain(api: TestClient) -> None:
    assert api.post(PATH, params={"version": 1}, json=EXAMPLE).raise_for_status().json()["model"]["version"] == 1


def test_explain_without_a_model_gets_503_with_the_reason(install: Install) -> None:
    with serving(install().settings) as client:
        wait_until(lambda: "in Production" in client.get("/readyz").json()["detail"])
        response = client.post(PATH, json=EXAMPLE)
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert f"{COVERTYPE.name}_train" in response.json()["detail"]


def test_a_version_without_training_rows_predicts_and_reports_why_it_cannot_explain(install: Install) -> None:
    here = install()
    here.promote(here.good[1])
    with serving(here.settings) as client:
        wait_until(lambda: version_of(client) == 1)
        response = client.post(PATH, json=EXAMPLE)
        assert response.status_code == 409
        assert "registered without its training rows" in response.json()["detail"]
        assert version_of(client) == 1


def without_stores(_: Settings) -> Registry:
    raise WarehouseError("all of it is gone")


@pytest.mark.soak
def test_a_restarted_api_explains_from_its_cache_marked_stale(install: Install) -> None:
    here = install(in_production=True)
    with serving(here.settings) as client:
        wait_until(lambda: version_of(client) == 1)
        wait_until(lambda: client.post(PATH, json=EXAMPLE).is_success)
        fresh = client.post(PATH, json=EXAMPLE)
    assert "x-model-stale" not in fresh.headers
    app = build_app(here.settings, ModelFollower(here.settings, ALL, without_stores), ALL, DEFAULT)
    with running(app) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        again = client.post(PATH, json=EXAMPLE).raise_for_status()
        assert again.headers["x-model-stale"] == "true"
        assert again.json()["neighbours"] == fresh.json()["neighbours"]

        [rows] = here.settings.home.glob("serving/*/*/1/files/extra_files/reference.parquet")
        rows.write_bytes(rows.read_bytes() + b"\0")
    with running(build_app(here.settings, ModelFollower(here.settings, ALL, without_stores), ALL, DEFAULT)) as client:
        # Tampered files are used neither to explain nor to predict.
        wait_until(lambda: "all of it is gone" in client.get("/readyz").text)
        assert client.post(PATH, json=EXAMPLE).status_code == 503


def test_a_replaced_model_is_freed_without_a_garbage_collection(install: Install) -> None:
    here = install(in_production=True)
    with serving(here.settings) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        client.post(PATH, json=EXAMPLE).raise_for_status()
        loaded = client.app.state.follower.in_production(COVERTYPE)  # type: ignore[attr-defined]
        replaced = [ref(part) for part in (loaded, loaded.predictor, loaded.explainer)]
        del loaded
        gc.disable()
        try:
            here.promote(here.good[1])
            wait_until(lambda: version_of(client) == 2)
            wait_until(lambda: not any(part() for part in replaced))
        finally:
            gc.enable()


def test_training_rows_are_not_exposed_unless_the_declaration_allows(
    install: Install,
) -> None:
    here = install(in_production=True)
    closed = (replace(COVERTYPE, expose_training_rows=False),)
    app = build_app(here.settings, ModelFollower(here.settings, closed), closed, closed[0])
    with running(app) as client:
        wait_until(lambda: version_of(client) == 1)
        wait_until(lambda: client.post(PATH, json=EXAMPLE).is_success)
        answer = client.post(PATH, json=EXAMPLE, params={"neighbours": 3}).json()
        always = {"prediction", "label", "probabilities", "contributions", "model"}
        assert answer.keys() == always | {"warnings", "near_classes"}
        assert all(round(near["share"] * 50) % 10 == 0 for near in answer["near_classes"])
        assert answer == client.post(PATH, json=EXAMPLE).json() | {"contributions": answer["contributions"]}
        parts = answer["contributions"]
        assert parts["output"] == answer["probabilities"][answer["label"]] == round(parts["output"], 3)
        assert round(parts["base"] + sum(f["contribution"] for f in parts["features"]), 3) == parts["output"]
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
        assert schemas.keys().isdisjoint({"CovertypeValues", "Neighbour", "PrincipalComponents", "SamplePoint"})


def test_figures_of_a_closed_use_case_have_two_decimals_wherever_the_ledger_is_shown(install: Install) -> None:
    """More would tell how many of a small group's held-out rows are answered rightly, which the card withholds."""
    here = install(in_production=True)
    closed = (replace(COVERTYPE, expose_training_rows=False),)

    def figures(value: Any) -> Iterator[float]:
        if isinstance(value, dict):
            for name, part in value.items():
                # Of the machine, or of the rule itself.
                yield from figures(part) if name not in ("latency_ms", "look") else ()
        elif isinstance(value, list):
            for part in value:
                yield from figures(part)
        elif isinstance(value, float):
            yield value

    with running(build_app(here.settings, ModelFollower(here.settings, closed), closed, closed[0])) as client:
        wait_until(lambda: version_of(client) == 1)
        model = f"/models/{COVERTYPE.model_name}"
        for path in (f"{model}/versions/1", f"{model}/history", "/models", "/model-info?use_case=covertype"):
            shown = list(figures(client.get(path).raise_for_status().json()))
            assert shown
            assert [value for value in shown if value != round(value, 2)] == []
        exported = client.get(f"{model}/history", params={"format": "csv"}).raise_for_status().text
        [entry] = csv.DictReader(io.StringIO(exported))
        for name in ("metrics_after", "gate"):
            assert [value for value in figures(json.loads(entry[name] or "{}")) if value != round(value, 2)] == []


@pytest.mark.soak
def test_explanations_of_a_closed_use_case_have_a_rate_limit_per_client(install: Install) -> None:
    here = install(in_production=True, explain_rate=0.001)
    closed = (replace(COVERTYPE, expose_training_rows=False),)
    with running(build_app(here.settings, ModelFollower(here.settings, closed), closed, closed[0])) as client:
        wait_until(lambda: version_of(client) == 1)
        quick = {"contributions": False}
        statuses = [client.post(PATH, json=EXAMPLE, params=quick).status_code for _ in range(33)]
        assert statuses.count(429) >= 3
        refused = client.post(PATH, json=EXAMPLE, params=quick)
        assert (refused.status_code, int(refused.headers["retry-after"]) > 0) == (429, True)
        assert "too many explanations of covertype" in refused.json()["detail"]


def test_batches_quarantine_and_health_of_a_closed_use_case_need_a_key_and_show_no_values(install: Install) -> None:
    key = "schlüssel-mit-16-zeichen"
    here = install(in_production=True, predict_keys=f"somebody:{key}")
    closed = (replace(COVERTYPE, expose_training_rows=False),)
    store = BatchStore(connect(here.settings.warehouse_url), closed[0])
    bad = ["9999", *as_words(generate(20, seed=1), 1)[0][1:]]
    checked = check(closed[0], [bad], "uci")
    store.store(Batch("http://data.test/data", "group 6", "e9", 99, [bad], "uci"), checked.accepted, checked.refused)
    with running(build_app(here.settings, ModelFollower(here.settings, closed), closed, closed[0])) as client:
        for path in ("batches", "quarantine", "health"):
            url = f"/use-cases/covertype/{path}"
            assert client.get(url).status_code == 401
            for form in (key.encode(), key.encode("latin-1")):
                assert client.get(url, headers={b"X-API-Key": form}).status_code == 200
        assert client.get("/events").status_code == 401
        [row] = client.get("/use-cases/covertype/quarantine", headers={b"X-API-Key": key.encode()}).json()["rows"]
        assert set(row["values"].values()) == {"hidden"}
        assert "9999" not in str(row)
        assert row["reason"].startswith("Elevation")
        # Somebody who knows a row but for its label could try each label until the digest is this one.
        batches = client.get("/use-cases/covertype/batches", headers={b"X-API-Key": key.encode()}).json()["batches"]
        assert {row["epoch"], *(batch[name] for batch in batches for name in ("epoch", "digest"))} == {"hidden"}
        assert client.get("/use-cases").json()["needs_key"] is True


def test_explain_needs_the_same_key_as_predict(install: Install) -> None:
    here = install(in_production=True, predict_keys="somebody:a-key-of-sixteen-characters")
    with serving(here.settings) as client:
        assert client.post(PATH, json=EXAMPLE).status_code == 401
        key = {"X-API-Key": "a-key-of-sixteen-characters"}
        wait_until(lambda: client.post(PATH, json=EXAMPLE, headers=key).is_success)


def test_explanations_beyond_the_queue_get_503(
    installed: Installation, api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dosel.explain import Explainer

    inside, go_on = threading.Event(), threading.Event()
    explain = Explainer.explain

    def slow(self: Explainer, *asked: Any) -> Any:
        inside.set()
        go_on.wait(20)
        return explain(self, *asked)

    monkeypatch.setattr(Explainer, "explain", slow)
    monkeypatch.setattr("app.routes.explain.WAITING", 0)
    with serving(installed.settings) as client:
        wait_until(lambda: version_of(client) == 1)
        first: list[int] = []
        asking = threading.Thread(target=lambda: first.append(client.post(PATH, json=EXAMPLE).status_code))
        asking.start()
        assert inside.wait(20)
        response = client.post(PATH, json=EXAMPLE)
        go_on.set()
        asking.join()
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert "the queue for explanations is full" in response.json()["detail"]
    assert first == [200]


@pytest.mark.parametrize("use_case", ALL, ids=lambda u: u.name)
def test_each_use_case_has_a_documented_route_derived_from_its_declaration(api: TestClient, use_case: UseCase) -> None:
    document = api.get("/openapi.json").json()
    operation = document["paths"][f"/explain/{use_case.name}"]["post"]
    [body] = operation["requestBody"]["content"].values()
    row = document["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
    assert row["examples"] == [use_case.example]
    assert {"400", "401", "404", "408", "409", "413", "415", "422", "429", "503"} < set(operation["responses"])
    shown = use_case.name.capitalize() + "Values"
    assert (shown in document["components"]["schemas"]) == use_case.expose_training_rows
    if use_case.expose_training_rows:
        assert list(document["components"]["schemas"][shown]["properties"]) == list(use_case.feature_names)
