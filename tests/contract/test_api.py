"""The prediction API over HTTP, with real models from a real registry.

Every response is checked against the app's OpenAPI document: see `checked`.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.main import build_app, create_app
from app.routes.cards import CYCLONEDX, MARKDOWN
from app.serving.follower import ModelFollower
from app.serving.loaded_model import LoadedModel
from dosel.db.engine import connect
from dosel.errors import RegistryError, WarehouseError
from dosel.registry.ledger import PromotionLedger
from dosel.registry.registry import Registry
from dosel.registry.store import ModelVersion
from dosel.rows.validation import Validator
from dosel.settings import Settings
from dosel.usecases import ALL, DEFAULT, Category, Number, UseCase
from dosel.usecases.covertype import COVERTYPE
from dosel.usecases.penguins import PENGUINS
from tests.contract.conftest import Installation

Install = Callable[..., Installation]

EXAMPLE = COVERTYPE.example
JSON = {"Content-Type": "application/json"}
PROBLEM = "application/problem+json"
NAME = COVERTYPE.model_name
OTHER = replace(COVERTYPE, name="other", model_name="other_model")
SILENT = "http://127.0.0.1:1"
"""An address at which nothing listens."""
DOCUMENTS: dict[str, dict[str, Any]] = {}


@contextmanager
def running(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        client.event_hooks["response"].append(checked(app.openapi()))
        yield client


@contextmanager
def serving(settings: Settings) -> Iterator[TestClient]:
    """A client of the app with these settings; the OpenAPI document is cached, since generating it takes a second."""
    app = create_app(settings)
    key = settings.model_dump_json(exclude={"home", "tracking_uri", "warehouse_url"})
    app.openapi_schema = DOCUMENTS.get(key)
    DOCUMENTS[key] = app.openapi()
    with running(app) as client:
        yield client


def checked(document: dict[str, Any]) -> Callable[[httpx.Response], None]:
    """A check of responses: the status is documented, the body fits its schema, errors are problem documents."""

    def check(response: httpx.Response) -> None:
        response.read()
        path, method = response.request.url.path, response.request.method.lower()
        media_type = response.headers["content-type"]
        operation = document["paths"].get(path, {}).get(method)
        if operation and media_type.startswith("text/csv"):
            assert "text/csv" in operation["responses"]["200"]["content"]
            return
        if operation:
            schema = operation["responses"][str(response.status_code)]["content"][media_type]["schema"]
        elif response.is_error:
            assert media_type == PROBLEM
            schema = {"$ref": "#/components/schemas/Problem"}
        else:
            return
        # Without checking the schema itself, which takes longer than most requests.
        jsonschema.Draft202012Validator(schema | {"components": document["components"]}).validate(response.json())
        if response.is_error:
            assert response.json()["status"] == response.status_code
            assert response.json()["instance"] == path

    return check


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def version_of(client: TestClient) -> int | None:
    response = client.post("/predict", json=EXAMPLE)
    return int(response.json()["model"]["version"]) if response.is_success else None


@pytest.fixture(scope="module")
def installed(install: Install) -> Installation:
    made = install(in_production=True)
    made.promote_others()
    return made


@pytest.fixture(scope="module")
def api(installed: Installation) -> Iterator[TestClient]:
    """An API that answers with version 1."""
    with serving(installed.settings) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        wait_until(lambda: all(state["ready"] for state in client.get("/readyz").json()["use_cases"].values()))
        yield client


# Successful requests.


@pytest.mark.parametrize("path", ["/predict", "/predict/covertype"])
def test_a_row_is_answered_with_the_model_in_production(api: TestClient, installed: Installation, path: str) -> None:
    answer = api.post(path, json=EXAMPLE).raise_for_status().json()
    assert answer["model"] == {"name": NAME, "version": 1, "run_id": installed.good[0]}
    assert answer["label"] == COVERTYPE.target.labels[answer["prediction"]]
    assert answer["probabilities"][answer["label"]] == max(answer["probabilities"].values())
    assert sum(answer["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "changed",
    [
        {"Elevation": 2544.0},
        {"Elevation": "2544"},
        {"Elevation": " 2.544e3 "},
        {"Soil_Type": 7102},
        {"Soil_Type": "c7102"},
        {"Soil_Type": " 7102 "},
        {"Wilderness_Area": "COMMANCHE"},
        {"Wilderness_Area": "comanche peak"},
    ],
)
def test_other_spellings_of_a_value_get_the_same_answer(api: TestClient, changed: dict[str, Any]) -> None:
    expected = api.post("/predict", json=EXAMPLE).json()
    assert api.post("/predict", json=EXAMPLE | changed).raise_for_status().json() == expected


@pytest.mark.parametrize("model", [NAME, "", None])
def test_a_registered_model_can_be_selected_by_name(api: TestClient, model: str | None) -> None:
    assert api.post("/predict", json=EXAMPLE | {"model": model}).raise_for_status().json()["model"]["name"] == NAME
    assert api.post("/predict/covertype", params={"model": model}, json=EXAMPLE).is_success


@pytest.mark.parametrize("content_type", [None, "application/json; charset=utf-8", "application/vnd.row+json"])
def test_every_json_content_type_is_accepted(api: TestClient, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    assert api.post("/predict", content=json.dumps(EXAMPLE), headers=headers).is_success


def test_models_are_listed_with_metrics_gate_and_lineage(api: TestClient, installed: Installation) -> None:
    models = api.get("/models").raise_for_status().json()["models"]
    assert [(model["name"], model["use_case"]) for model in models] == [(u.model_name, u.name) for u in ALL]
    [model] = (model for model in models if model["name"] == NAME)
    [version] = model["versions"]
    assert (version["version"], version["run_id"], version["in_production"]) == (1, installed.good[0], True)
    assert (version["stage"], version["aliases"]) == ("Production", ["production", "random_forest"])
    assert version["metrics"] == {"holdout_accuracy": 0.5, "test_accuracy": 0.5}
    assert version["params"] == {"seed": "0"}
    # MLflow's tags claim that the version passed the gate; the ledger has no such verdict.
    assert version["gate"] == {"verdict": None, "reason": None}
    assert version["lineage"]["batch_ids"] == [1, 2]
    assert version["lineage"]["data_digest"] == "0" * 64
    assert (version["lineage"]["rows_train"], version["lineage"]["rows_test"]) == (140, None)


def test_listar_modelos_lists_the_names_that_predict_accepts(api: TestClient) -> None:
    names = api.get("/listar_modelos").raise_for_status().json()["modelos"]
    assert names == [use_case.model_name for use_case in ALL]
    assert api.post("/predict", json=EXAMPLE | {"model": NAME}).is_success


@pytest.mark.parametrize("query", ["", "?use_case=covertype", f"?model={NAME}"])
def test_model_info_shows_the_production_and_the_loaded_version(api: TestClient, query: str) -> None:
    info = api.get(f"/model-info{query}").raise_for_status().json()
    assert info["production"]["version"] == info["loaded"]["version"] == 1
    assert info["production"]["metrics"] == {"holdout_accuracy": 0.5, "test_accuracy": 0.5}
    assert info["loaded"]["loaded_at"] < info["read_at"]


def test_warmup_returns_the_loaded_versions(api: TestClient, installed: Installation) -> None:
    for query in ("", "?use_case=covertype"):
        loaded = api.post(f"/warmup{query}").raise_for_status().json()
        assert loaded["covertype"]["version"] == 1
        assert loaded["covertype"]["run_id"] == installed.good[0]


def test_use_cases_have_every_field_that_a_form_needs(api: TestClient) -> None:
    listed = api.get("/use-cases").raise_for_status().json()["use_cases"]
    assert [u["name"] for u in listed if u["default"]] == [COVERTYPE.name]
    for use_case, shown in zip(ALL, listed, strict=True):
        assert [f["name"] for f in shown["features"]] == list(use_case.feature_names)
        for feature, field in zip(use_case.features, shown["features"], strict=True):
            assert (field["title"], field["help"], field["example"]) == (feature.title, feature.help, feature.example)
            match feature:
                case Number():
                    assert (field["low"], field["high"], field["unit"]) == (
                        feature.minimum,
                        feature.maximum,
                        feature.unit,
                    )
                case Category():
                    assert [(c["value"], c["title"]) for c in field["choices"]] == [
                        (c.value, c.title) for c in feature.choices
                    ]
        assert shown["target"]["labels"] == {str(code): label for code, label in use_case.target.labels.items()}
        assert api.post(shown["path"], json=shown["example"]).is_success


def test_health_readiness_and_root_are_served(api: TestClient) -> None:
    assert api.get("/healthz").json() == {"status": "ok"}
    assert api.get("/readyz").json()["use_cases"]["covertype"] == {"ready": True, "version": 1, "waiting_for": None}
    assert api.get(api.get("/").json()["docs"]).is_success


# The OpenAPI document.


@pytest.mark.parametrize("use_case", ALL, ids=lambda u: u.name)
def test_every_field_is_documented_and_the_example_is_accepted(api: TestClient, use_case: UseCase) -> None:
    document = api.get("/openapi.json").json()
    body = document["paths"][f"/predict/{use_case.name}"]["post"]["requestBody"]["content"]["application/json"]
    schema = document["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
    assert schema["required"] == [feature.name for feature in use_case.features if not feature.optional]
    assert schema["additionalProperties"] is False
    for feature in use_case.features:
        field = schema["properties"][feature.name]
        assert feature.help in field["description"]
        assert field["examples"] == [feature.example]
        if feature.optional:
            value, nothing = field["anyOf"]
            assert nothing == {"type": "null"}
            field |= value
        match feature:
            case Number():
                assert (field["minimum"], field["maximum"]) == (feature.minimum, feature.maximum)
                assert field["type"] == ("integer" if feature.integer else "number")
                assert feature.unit in field["description"]
            case Category():
                assert field["enum"] == list(feature.values)
    assert api.post(f"/predict/{use_case.name}", json=schema["examples"][0]).is_success


def test_a_field_may_have_any_of_its_column_aliases(api: TestClient) -> None:
    row = PENGUINS.example
    for feature in PENGUINS.features:
        for name in (feature.name.replace("_", " ").upper(), *feature.aliases):
            renamed = {name if key == feature.name else key: value for key, value in row.items()}
            assert api.post("/predict/penguins", json=renamed).is_success


def test_every_operation_is_described_and_every_error_is_a_problem_document(api: TestClient) -> None:
    document = api.get("/openapi.json").json()
    assert "HTTPValidationError" not in json.dumps(document)
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert operation["tags"]
            for status, response in operation["responses"].items():
                first, *others = response["content"]
                assert first == (PROBLEM if int(status) >= 400 else "application/json")
                assert set(others) <= ({"text/csv", MARKDOWN, CYCLONEDX} if int(status) < 400 else set())
                if int(status) >= 400 and status != "422":
                    assert response["content"][PROBLEM]["example"]["status"] == int(status)


@pytest.mark.parametrize("use_case", ALL, ids=lambda u: u.name)
def test_examples_are_of_the_use_case_itself(api: TestClient, use_case: UseCase) -> None:
    document = api.get("/openapi.json").json()
    first = use_case.features[0].name
    for path in (f"/predict/{use_case.name}", f"/predict/{use_case.name}/batch", f"/explain/{use_case.name}"):
        responses = document["paths"][path]["post"]["responses"]
        for status, kind in (("200", "application/json"), ("422", PROBLEM)):
            content = responses[status]["content"][kind]
            jsonschema.validate(content["example"], content["schema"] | {"components": document["components"]})
        answer = responses["200"]["content"]["application/json"]["example"]
        assert answer["model"]["name"] == use_case.model_name
        assert {p["label"] for p in answer.get("predictions", [answer])} <= set(use_case.target.labels.values())
        refusal = responses["422"]["content"][PROBLEM]["example"]
        sent: Any = use_case.example | {first: "?"}
        actual = api.post(path, json=[sent] if path.endswith("batch") else sent).json()
        assert refusal == actual


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/predict?modle=x", 'modle: expected no query parameter of this name (did you mean model?), got "x"'),
        ("POST", "/predict/covertype/batch?versoin=1", "(did you mean version?)"),
        ("GET", "/model-info?usecase=penguins", "(did you mean use_case?)"),
        ("GET", "/models?page=2", "page: expected no query parameter of this name, got 2"),
        ("GET", "/events?q=x", "(there are: use_case, before, limit)"),
    ],
)
def test_an_unknown_query_parameter_is_refused(api: TestClient, method: str, path: str, expected: str) -> None:
    example = COVERTYPE.example
    body: Any = None if method == "GET" else [example] if "batch" in path else example
    response = api.request(method, path, json=body)
    assert response.status_code == 422
    assert expected in response.json()["detail"]


def test_health_checks_may_add_any_parameter(api: TestClient) -> None:
    assert api.get("/healthz?nocache=17").is_success


@pytest.mark.parametrize("use_case", ALL, ids=lambda u: u.name)
def test_a_family_can_be_selected_by_name(api: TestClient, use_case: UseCase) -> None:
    first, *rest = (family.name for family in use_case.families)
    path = f"/predict/{use_case.name}"
    production = api.post(path, json=use_case.example).json()
    for where in (path, f"{path}/batch"):
        rows = use_case.example if where == path else [use_case.example]
        answer = api.post(where, params={"model": first}, json=rows).raise_for_status().json()
        assert answer["model"] == production["model"]
        info = api.get("/model-info", params={"use_case": use_case.name, "model": first}).raise_for_status().json()
        assert info["family"]["version"] == answer["model"]["version"]
        assert info["family"]["lineage"]["family"] == first
        for unknown, status in ((rest[0], 503), ("nobody", 404)):
            response = api.post(where, params={"model": unknown}, json=rows)
            assert response.status_code == status
            assert unknown in response.json()["detail"]


OPTIONAL = [(use_case, feature) for use_case in ALL for feature in use_case.features if feature.optional]


@pytest.mark.parametrize(("use_case", "feature"), OPTIONAL, ids=lambda x: x.name)
def test_optional_features_may_be_null_or_left_out(api: TestClient, use_case: UseCase, feature: Any) -> None:
    path, row = f"/predict/{use_case.name}", use_case.example
    without_field = {name: value for name, value in row.items() if name != feature.name}
    null = api.post(path, json=row | {feature.name: None}).raise_for_status().json()
    assert api.post(path, json=without_field).raise_for_status().json() == null
    for mark in use_case.missing:
        assert api.post(path, json=row | {feature.name: mark.lower()}).raise_for_status().json() == null
    assert api.post(path, params={"model": ""}, json=without_field).raise_for_status().json() == null
    [listed] = api.post(f"{path}/batch", json=[without_field]).raise_for_status().json()["predictions"]
    assert listed["probabilities"] == null["probabilities"]
    lines = [",".join(row), ",".join("" if name == feature.name else str(value) for name, value in row.items())]
    answer = api.post(
        f"{path}/batch", content="\n".join(lines), headers={"Content-Type": "text/csv"}
    ).raise_for_status()
    assert null["label"] in answer.text
    # An optional feature still refuses an invalid value.
    response = api.post(path, json=row | {feature.name: "nonsense"})
    assert [error["field"] for error in response.json()["errors"]] == [feature.name]


# Refused requests.


def changed(**fields: Any) -> bytes:
    return json.dumps(EXAMPLE | fields).encode()


def without_field(field: str) -> bytes:
    return json.dumps({name: value for name, value in EXAMPLE.items() if name != field}).encode()


def with_raw(field: str, text: str) -> bytes:
    return changed(**{field: "@"}).replace(b'"@"', text.encode())


SLOPE = "a whole number from 0 to 90 °"
SOIL = "one of C2702, "

UNACCEPTABLE: dict[str, tuple[bytes, str | None, str, str]] = {
    "missing": (without_field("Slope"), "Slope", SLOPE, "nothing"),
    "missing category": (without_field("Soil_Type"), "Soil_Type", SOIL, "nothing"),
    "text": (changed(Slope="steep"), "Slope", SLOPE, '"steep"'),
    "empty text": (changed(Slope=""), "Slope", SLOPE, "nothing"),
    "boolean": (changed(Slope=True), "Slope", SLOPE, "true"),
    "null": (changed(Slope=None), "Slope", SLOPE, "nothing"),
    "list": (changed(Slope=[17]), "Slope", SLOPE, "a list of 1 items"),
    "object": (changed(Slope={"value": 17}), "Slope", SLOPE, "an object with 1 fields"),
    "above": (changed(Slope=91), "Slope", SLOPE, "91"),
    "below": (changed(Slope=-1), "Slope", SLOPE, "-1"),
    "fraction": (changed(Slope=1.5), "Slope", SLOPE, "1.5"),
    "NaN": (changed(Slope=float("nan")), "Slope", SLOPE, "NaN"),
    "infinity": (changed(Slope=float("-inf")), "Slope", SLOPE, "-Infinity"),
    "1e400": (with_raw("Slope", "1e400"), "Slope", SLOPE, "Infinity"),
    "4000 digits": (with_raw("Slope", "9" * 4000), "Slope", SLOPE, "9" * 60 + "…"),
    "nested": (with_raw("Slope", "[" * 900 + "]" * 900), "Slope", SLOPE, "a list of 1 items"),
    "unknown category": (changed(Soil_Type="C1"), "Soil_Type", SOIL, '"C1"'),
    "category with NUL": (changed(Soil_Type="C7102\0"), "Soil_Type", SOIL, '"C7102\\u0000"'),
    "half a surrogate": (with_raw("Soil_Type", '"\\ud800"'), "Soil_Type", SOIL, ""),
    "long text": (changed(Soil_Type="x" * 60_000), "Soil_Type", SOIL, '"' + "x" * 60 + '…"'),
    "unknown field": (changed(slope=1), "slope", "no field of this name (did you mean Slope?)", "1"),
    "long field": (changed(**{"x" * 60_000: 1}), "x" * 60 + "…", "no field of this name", "1"),
    "many fields": (changed(**{f"f{i}": 1 for i in range(5_000)}), None, "a JSON object with the fields", "an object"),
    "a list": (b"[]", None, "a JSON object with the fields", "a list of 0 items"),
    "a text": (b'"row"', None, "a JSON object with the fields", '"row"'),
    "a number": (b"1", None, "a JSON object with the fields", "1"),
    "a null": (b"null", None, "a JSON object with the fields", "nothing"),
    "no body": (b"", None, "a JSON object with the fields", "nothing"),
}


@pytest.mark.parametrize("path", ["/predict", "/predict/covertype"])
@pytest.mark.parametrize("case", UNACCEPTABLE)
def test_a_refused_body_gets_422_with_field_and_expected_value(api: TestClient, path: str, case: str) -> None:
    body, field, expected, got = UNACCEPTABLE[case]
    response = api.post(path, content=body, headers=JSON)
    assert response.status_code == 422
    assert len(response.content) < 5000
    problem = response.json()
    [error] = problem["errors"]
    assert error["field"] == field
    assert error["expected"].startswith(expected)
    assert error["got"].startswith(got)
    assert error["message"] in problem["detail"]


@pytest.mark.parametrize("path", ["/predict", "/predict/covertype", "/predict/covertype/batch", "/explain/covertype"])
@pytest.mark.parametrize("case", UNACCEPTABLE)
def test_every_error_message_is_that_of_the_validator(api: TestClient, path: str, case: str) -> None:
    row = json.loads(UNACCEPTABLE[case][0] or b"null")
    batch = path.endswith("/batch")
    _, errors = Validator(COVERTYPE).check_rows([row])
    expected = [("row 1: " if batch else "") + error.message for error in errors[0]]
    response = api.post(path, content=json.dumps([row] if batch else row), headers=JSON)
    assert [error["message"] for error in response.json()["errors"]] == expected


@pytest.mark.parametrize("use_case", ALL, ids=lambda u: u.name)
@pytest.mark.parametrize("value", ["nothing", None, True, [1], {"value": 1}, "nonsense", "", 1e300, "x" * 1000])
def test_every_field_of_every_use_case_is_refused_by_name(api: TestClient, use_case: UseCase, value: Any) -> None:
    for feature in use_case.features:
        row = use_case.example | {feature.name: value}
        if value == "nothing":
            del row[feature.name]
        if feature.optional and value in ("nothing", None, ""):
            continue
        for path, sent in ((f"/predict/{use_case.name}", row), (f"/predict/{use_case.name}/batch", [row])):
            response = api.post(path, json=sent)
            assert response.status_code == 422
            [error] = response.json()["errors"]
            assert (error["field"], error["expected"]) == (feature.name, feature.describe_expected())


@pytest.mark.parametrize("use_case", ALL, ids=lambda u: u.name)
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"a": 1,', {}, 400),
        (b"a=1", {}, 400),
        (b"[" * 100_000, {}, 400),
        (b"[]", {}, 422),
        (b"null", {}, 422),
        (b"", {}, 422),
        (b'{"unknown": 1}', {}, 422),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b" " * 10_000_000, {}, 413),
    ],
)
def test_every_use_case_refuses_the_same_bodies(
    api: TestClient, use_case: UseCase, body: bytes, headers: dict[str, str], status: int
) -> None:
    response = api.post(f"/predict/{use_case.name}", content=body, headers=JSON | headers)
    assert response.status_code == status


def test_all_errors_of_a_row_are_reported_together(api: TestClient) -> None:
    problem = api.post("/predict", json=EXAMPLE | {"Slope": 91, "Soil_Type": "C1"}).json()
    assert [error["field"] for error in problem["errors"]] == ["Slope", "Soil_Type"]
    problem = api.post("/predict", json={f"f{i}": 1 for i in range(30)}).json()
    assert len(problem["errors"]) == 20
    assert problem["detail"].endswith("and 22 more")


@pytest.mark.parametrize("use_case", ALL, ids=lambda u: u.name)
def test_bounds_are_inclusive(api: TestClient, use_case: UseCase) -> None:
    for number in use_case.numbers:
        for value in (number.minimum, number.maximum):
            assert api.post(f"/predict/{use_case.name}", json=use_case.example | {number.name: value}).is_success
        for value in (
            (number.minimum - 1, number.maximum + 1) if number.integer else (number.minimum - 0.1, number.maximum + 0.1)
        ):
            response = api.post(f"/predict/{use_case.name}", json=use_case.example | {number.name: value})
            assert [e["field"] for e in response.json()["errors"]] == [number.name]


@pytest.mark.parametrize("path", ["/predict", "/predict/covertype"])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"Slope": 1,', "at line 1, column"),
        (b'{\n"Slope": 1\n"Aspect": 2}', "at line 3, column 1"),
        (b"{'Slope': 1}", "not JSON"),
        (b"Slope=1", "not JSON"),
        (b"[" * 10_000, "not JSON: it is nested too deeply"),
        (b'{"a":' * 10_000, "not JSON: it is nested too deeply"),
        (b'{"Slope": ' + b"9" * 5000 + b"}", "not JSON: a number has too many digits"),
        (b'{"Slope": "\xe9"}', "not JSON in UTF-8"),
    ],
)
def test_a_body_that_is_not_json_gets_400(api: TestClient, path: str, body: bytes, message: str) -> None:
    response = api.post(path, content=body, headers=JSON)
    assert response.status_code == 400
    assert message in response.json()["detail"]


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data", "nonsense"])
def test_an_unsupported_content_type_gets_415_with_the_header_to_send(api: TestClient, content_type: str) -> None:
    response = api.post("/predict", content=json.dumps(EXAMPLE), headers={"Content-Type": content_type})
    assert response.status_code == 415
    assert "Content-Type: application/json" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/predict", f"/predict/{COVERTYPE.name}"])
def test_an_unknown_model_in_the_query_gets_404_on_both_paths(api: TestClient, path: str) -> None:
    assert api.post(path, params={"model": "nope"}, json=EXAMPLE).status_code == 404
    assert api.post(path, params={"model": COVERTYPE.model_name}, json=EXAMPLE).status_code == 200


def test_curls_default_content_type_is_read_as_json(api: TestClient) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert api.post("/predict", content=json.dumps(EXAMPLE), headers=headers).status_code == 200
    assert api.post("/predict", content="Slope=1", headers=headers).status_code == 400


def test_a_body_of_10_mb_gets_413(api: TestClient) -> None:
    chunk = b" " * 100_000
    for body in (chunk * 100, (chunk for _ in range(100))):
        response = api.post("/predict", content=body, headers=JSON)
        assert response.status_code == 413
        assert "1,000,000 bytes" in response.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/predict", {"model": "nobody"}, 404, NAME),
        ("POST", "/predict/covertype?model=nobody", {}, 404, NAME),
        ("POST", "/predict", {"model": 3}, 422, "the name of a registered model"),
        ("POST", "/predict/nothing", {}, 404, "covertype"),
        ("POST", "/predict/" + "x" * 40, {}, 404, "covertype"),
        ("GET", "/model-info?use_case=nothing", {}, 404, "covertype"),
        ("GET", "/model-info?model=nobody", {}, 404, NAME),
        ("POST", "/warmup?use_case=nothing", {}, 404, "covertype"),
        ("GET", "/nowhere", {}, 404, "/docs"),
        ("GET", "/predict", {}, 405, "POST"),
        ("DELETE", "/models", {}, 405, "GET"),
    ],
)
def test_an_unknown_path_or_model_gets_404_with_the_known_ones(
    api: TestClient, method: str, path: str, body: dict[str, Any], status: int, message: str
) -> None:
    response = api.request(method, path, json=EXAMPLE | body)
    assert response.status_code == status
    assert message in response.json()["detail"]


def test_a_500_does_not_show_the_exception(installed: Installation) -> None:
    class Broken(ModelFollower):
        def in_production(self, use_case: UseCase) -> LoadedModel:
            raise RuntimeError("a secret")

    app = build_app(installed.settings, Broken(installed.settings, ALL), ALL, DEFAULT)
    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.post("/predict", json=EXAMPLE)
    assert response.status_code == 500
    assert response.headers["content-type"] == PROBLEM
    assert "secret" not in response.text


# Changes over time.


class UnreachableRegistry(Registry):
    """A registry that can be unreachable, and counts how often a model was read."""

    away = False
    loads = 0

    def production_number(self, name: str) -> int | None:
        if self.away:
            raise RegistryError("MLflow cannot be reached")
        return super().production_number(name)

    def files(self, version: ModelVersion) -> AbstractContextManager[Path]:
        self.loads += 1
        return super().files(version)


def unreachable(settings: Settings) -> UnreachableRegistry:
    return UnreachableRegistry(settings.tracking_uri, PromotionLedger(connect(settings.warehouse_url)))


def test_the_api_becomes_ready_when_a_model_is_promoted(install: Install) -> None:
    here = install()
    with serving(here.settings) as client:
        assert client.get("/healthz").is_success
        wait_until(lambda: "in Production" in client.get("/readyz").json()["detail"])
        for response in (client.get("/readyz"), client.post("/predict", json=EXAMPLE), client.post("/warmup")):
            assert response.status_code == 503
            assert "covertype_train" in response.json()["detail"]
            assert response.headers["retry-after"]
        assert client.get("/model-info").status_code == 503
        assert client.get("/models").json()["models"][0]["versions"] == []
        assert client.get("/listar_modelos").json() == {"modelos": []}

        here.promote(here.good[0])
        wait_until(lambda: client.get("/readyz").is_success)
        assert version_of(client) == 1


def test_a_promoted_version_answers_unless_it_cannot_be_loaded(install: Install) -> None:
    here = install(in_production=True)
    with serving(here.settings) as client:
        wait_until(lambda: version_of(client) == 1)
        here.promote(here.good[1])
        wait_until(lambda: version_of(client) == 2)

        assert here.promote(here.strange) == 3
        response = client.post("/warmup")
        assert response.status_code == 503
        assert "version 3, which could not be loaded" in response.json()["detail"]
        assert "version 2 keeps answering" in response.json()["detail"]
        assert version_of(client) == 2
        state = client.get("/readyz").json()["use_cases"]["covertype"]
        assert (state["ready"], state["version"]) == (True, 2)
        assert "version 3" in state["waiting_for"]
        info = client.get("/model-info").json()
        assert (info["production"]["version"], info["loaded"]["version"]) == (3, 2)

        here.registry.promote(here.registry.version(NAME, 1), "a test", "back")
        assert client.post("/warmup").json()["covertype"]["version"] == 1


@pytest.mark.soak
def test_warmup_loads_a_promoted_version_before_the_next_poll(install: Install) -> None:
    here = install(poll_seconds=3600)
    with serving(here.settings) as client:
        wait_until(lambda: "in Production" in client.get("/readyz").json()["detail"])
        here.promote(here.good[0])
        assert client.post("/warmup").is_success
        assert version_of(client) == 1


def test_the_loaded_version_answers_while_mlflow_is_down(install: Install) -> None:
    here = install(in_production=True)
    registry = unreachable(here.settings)
    app = build_app(here.settings, ModelFollower(here.settings, ALL, lambda _: registry), ALL, DEFAULT)
    with running(app) as client:
        wait_until(lambda: version_of(client) == 1)
        registry.away = True
        response = client.post("/warmup")
        assert response.status_code == 503
        assert "MLflow cannot be reached" in response.json()["detail"]
        assert version_of(client) == 1
        assert client.get("/readyz").is_success
        info = client.get("/model-info").raise_for_status().json()
        assert info["read_at"] == info["loaded"]["loaded_at"]
        assert info["loaded"]["stale"]
        # The ledger is in the data store, which answers.
        assert info["since"] is not None

        registry.away = False
        here.promote(here.good[1])
        wait_until(lambda: version_of(client) == 2)
    assert registry.loads == 2


@pytest.mark.soak
def test_a_failed_load_is_not_repeated_at_every_poll(install: Install) -> None:
    here = install()
    here.promote(here.strange)
    registry = unreachable(here.settings)
    looks = 0

    def opened(_: Settings) -> Registry:
        return registry

    class Counting(ModelFollower):
        def registry(self) -> Registry:
            nonlocal looks
            looks += 1
            return super().registry()

    app = build_app(here.settings, Counting(here.settings, ALL, opened), ALL, DEFAULT)
    with running(app) as client:
        wait_until(lambda: looks > 25)
        assert registry.loads < 8
        assert "could not be loaded" in client.get("/readyz").json()["detail"]


def test_the_api_starts_while_mlflow_is_down(install: Install) -> None:
    here = install(tracking_uri=SILENT)
    with serving(here.settings) as client:
        assert client.get("/healthz").is_success
        wait_until(lambda: SILENT in client.get("/readyz").json()["detail"])
        for response in (
            client.post("/warmup"),
            client.get("/models"),
            client.get("/listar_modelos"),
            client.post("/predict", json=EXAMPLE),
        ):
            assert response.status_code == 503
            assert f"MLflow at {SILENT}" in response.json()["detail"]


@pytest.mark.soak
def test_the_api_starts_while_the_data_store_is_down_and_retries(install: Install) -> None:
    here = install(in_production=True)
    tries = 0

    def opened(settings: Settings) -> Registry:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise WarehouseError("the data store failed")
        return unreachable(settings)

    with running(build_app(here.settings, ModelFollower(here.settings, ALL, opened), ALL, DEFAULT)) as client:
        wait_until(lambda: version_of(client) == 1)
    assert tries == 3


@pytest.mark.soak
def test_a_use_case_without_a_model_does_not_block_the_others(install: Install) -> None:
    here = install(in_production=True)
    both = (COVERTYPE, OTHER)
    with running(build_app(here.settings, ModelFollower(here.settings, both), both, COVERTYPE)) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        assert list(client.post("/warmup").raise_for_status().json()) == ["covertype"]
        states = client.get("/readyz").json()["use_cases"]
        assert (states["covertype"]["ready"], states["other"]["ready"]) == (True, False)
        assert client.post("/predict/other", json=EXAMPLE).status_code == 503
        assert client.post("/warmup?use_case=other").status_code == 503
        assert client.get("/listar_modelos").json() == {"modelos": [NAME]}
        response = client.post("/predict", json=EXAMPLE | {"model": OTHER.model_name})
        assert response.status_code == 404
        assert "/predict/other" in response.json()["detail"]


def test_an_invalid_setting_stops_the_start_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOSEL_POLL_SECONDS", "often")
    with pytest.raises(SystemExit, match="DOSEL_POLL_SECONDS"):
        create_app()
