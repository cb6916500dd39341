"""Serving: the cache on disk, metrics, logs, the prediction log, keys and rate limits."""

import json
import logging
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from mlflow import MlflowClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select, text

from app.http.logs import JsonFormatter
from app.main import build_app, create_app
from app.serving.follower import ModelFollower
from dosel.credentials import KEY_FILE
from dosel.db.engine import connect
from dosel.db.tables import ANSWERS
from dosel.errors import RegistryError, WarehouseError
from dosel.model import tags
from dosel.registry.registry import Registry
from dosel.registry.store import Store
from dosel.registry.verdicts import Verdict
from dosel.settings import Settings
from dosel.usecases import ALL, DEFAULT, UseCase
from dosel.usecases.covertype import COVERTYPE
from tests.contract.conftest import Installation
from tests.contract.test_api import EXAMPLE, NAME, running, serving, version_of, wait_until
from tests.ledgers import drop_triggers

Install = Callable[..., Installation]
KEY = "a-key-of-sixteen-characters"


@pytest.fixture(scope="module")
def installed(install: Install) -> Installation:
    return install(in_production=True)


@pytest.fixture
def api(installed: Installation) -> Iterator[TestClient]:
    yield from ready(installed)


@pytest.fixture(scope="module")
def shared_api(installed: Installation) -> Iterator[TestClient]:
    """For tests that count nothing."""
    yield from ready(installed)


def ready(installed: Installation) -> Iterator[TestClient]:
    with serving(installed.settings) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        yield client


def figure(client: TestClient, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    families = text_string_to_metric_families(client.get("/metrics").raise_for_status().text)
    samples = [s for family in families for s in family.samples if s.name == name]
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


# The cache on disk.


def without_stores(_: Settings) -> Registry:
    raise WarehouseError("MLflow, MinIO and MySQL are all gone")


def restarted(here: Installation) -> TestClient:
    """The same API with the same cache, and no MLflow or data store."""
    return TestClient(build_app(here.settings, ModelFollower(here.settings, ALL, without_stores), ALL, DEFAULT))


PATHS = ("/predict", *(f"/predict?model={model}" for model in (NAME, COVERTYPE.families[0].name)))


@pytest.fixture(scope="module")
def restarted_api(install: Install) -> Iterator[tuple[TestClient, dict[str, Any]]]:
    """An API without MLflow and data store, and its responses on each path before the restart."""
    here = install(in_production=True)
    with serving(here.settings) as client:
        wait_until(lambda: version_of(client) == 1)
        here.promote(here.good[1])
        wait_until(lambda: version_of(client) == 2)
        fresh = {path: client.post(path, json=EXAMPLE) for path in PATHS}
        assert all("x-model-stale" not in answer.headers for answer in fresh.values())
        assert client.get("/readyz").json()["stale"] == []
    with restarted(here) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        yield client, {path: answer.json() for path, answer in fresh.items()}


@pytest.mark.parametrize("path", PATHS)
def test_a_restarted_api_answers_from_disk_marked_stale(
    restarted_api: tuple[TestClient, dict[str, Any]], path: str
) -> None:
    client, fresh = restarted_api
    answer = client.post(path, json=EXAMPLE).raise_for_status()
    assert answer.json() == fresh[path]
    assert answer.headers["x-model-stale"] == "true"
    assert client.get("/readyz").json()["stale"] == [COVERTYPE.name]
    assert figure(client, "dosel_model_stale") == 1


def test_tampered_files_in_the_cache_are_not_used(install: Install) -> None:
    here = install(in_production=True)
    with serving(here.settings) as client:
        wait_until(lambda: version_of(client) == 1)
    [onnx] = here.settings.home.glob("serving/*/*/1/files/serving/classifier.onnx")
    onnx.write_bytes(onnx.read_bytes() + b"\0")
    with restarted(here) as client:
        wait_until(lambda: "all gone" in client.get("/readyz").text)
        assert client.post("/predict", json=EXAMPLE).status_code == 503


@pytest.mark.soak
def test_a_cache_signed_with_another_key_is_not_used(install: Install) -> None:
    """The cache has another model with valid digests, signed with the key of another installation."""
    here, other = install(), install()
    for installation, run_id in ((here, here.good[0]), (other, other.good[1])):
        installation.promote(run_id)
        with serving(installation.settings) as client:
            wait_until(lambda: version_of(client) == 1)
    [theirs], [ours] = (home.settings.home.glob("serving/*") for home in (other, here))
    shutil.rmtree(ours)
    shutil.copytree(theirs, ours)
    with restarted(here) as client:
        wait_until(lambda: "all gone" in client.get("/readyz").text)
        assert client.post("/predict", json=EXAMPLE).status_code == 503


@pytest.mark.soak
def test_a_cached_version_unknown_to_the_ledger_answers_only_until_the_ledger_is_read(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow is down and the data store is reachable, so that the ledger alone decides."""
    here = install(in_production=True)
    with serving(here.settings) as client:
        wait_until(lambda: version_of(client) == 1)
    with connect(here.settings.warehouse_url).begin() as connection:
        drop_triggers(connection)
        connection.execute(text("DELETE FROM manifests WHERE version = 1"))
    gone = here.settings.model_copy(update={"tracking_uri": here.store})
    monkeypatch.setattr(Store, "alias", _mlflow_is_away)
    with serving(gone) as client:
        wait_until(lambda: "MLflow cannot be reached" in client.get("/readyz").text)
        assert client.post("/predict", json=EXAMPLE).status_code == 503


def _mlflow_is_away(*_: object) -> None:
    raise RegistryError("MLflow cannot be reached")


@pytest.mark.soak
def test_each_installation_has_its_own_private_cache_key(install: Install) -> None:
    here = install(in_production=True)
    with serving(here.settings) as client:
        wait_until(lambda: version_of(client) == 1)
    file = here.settings.home / KEY_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    with restarted(here) as client:
        wait_until(lambda: client.get("/readyz").is_success)
    assert file.read_bytes() == before


def changed(**parts: Any) -> UseCase:
    """Covertype with another first feature."""
    first, *others = COVERTYPE.features
    return replace(COVERTYPE, features=(replace(first, **parts), *others))


@pytest.mark.soak
@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"unit": "ft"}, "Elevation: unit was 'm', is 'ft'"),
        ({"maximum": 9000}, "Elevation: maximum was"),
        ({"revision": 2}, "Elevation: revision was 1, is 2"),
    ],
)
@pytest.mark.parametrize("store", ["there", "away"])
def test_a_version_of_another_declaration_is_refused_with_the_change(
    install: Install, parts: dict[str, Any], message: str, store: str
) -> None:
    here = install(in_production=True)
    with serving(here.settings) as client:
        wait_until(lambda: version_of(client) == 1)
    use_cases = [changed(**parts)]
    follower = ModelFollower(here.settings, use_cases, *([without_stores] if store == "away" else []))
    with TestClient(build_app(here.settings, follower, use_cases, use_cases[0])) as client:
        expected = message if store == "there" else "all gone"
        wait_until(lambda: expected in client.get("/readyz").text)
        assert client.post("/predict", json=EXAMPLE).status_code == 503
        if store == "there":
            assert "Train a new version" in client.get("/readyz").text


def test_a_changed_description_keeps_the_version_loaded(install: Install) -> None:
    here = install(in_production=True)
    use_cases = [changed(title="Height", help="Height of the cell.", aliases=("height",))]
    with running(build_app(here.settings, ModelFollower(here.settings, use_cases), use_cases, use_cases[0])) as client:
        wait_until(lambda: version_of(client) == 1)


# Metrics and logs.


def test_metrics_count_predictions_refusals_and_rows_by_version(api: TestClient) -> None:
    before = figure(api, "dosel_requests_total", route="/predict", status="200")
    api.post("/predict", json=EXAMPLE)
    api.post("/predict?model=" + NAME, json=EXAMPLE)
    assert figure(api, "dosel_requests_total", route="/predict", status="200") == before + 2
    api.post("/predict", json={})
    assert figure(api, "dosel_requests_total", route="/predict", status="422") == 1
    api.get("/no/such/path")
    assert figure(api, "dosel_requests_total", route="none", status="404") == 1
    api.post("/predict/covertype/batch", json=[EXAMPLE] * 3)
    assert figure(api, "dosel_batch_rows_total") == 3
    assert figure(api, "dosel_model_version", form="onnx") == 1
    assert figure(api, "dosel_model_fallback") == figure(api, "dosel_model_stale") == 0
    assert figure(api, "dosel_model_swaps_total") <= 1


def test_models_shows_the_backend(api: TestClient) -> None:
    [model, *_] = api.get("/models").json()["models"]
    assert (model["loaded"]["version"], model["loaded"]["form"], model["loaded"]["fallback"]) == (1, "onnx", None)


@pytest.mark.soak
def test_scikit_learn_answers_if_the_gates_parity_check_failed(install: Install) -> None:
    here = install()
    why = "ONNX differs: 34,861 rows: 3 get another label, probabilities are off by 5.0e-01 at most"
    here.promote(here.good[0])
    version = here.registry.version(NAME, 1)
    # An edit in MLflow has no effect.
    MlflowClient(here.store).set_tag(here.good[0], tags.BACKEND, "onnx")
    found = {tags.BACKEND: "scikit-learn", tags.BACKEND_REASON: why}
    here.registry.add_verdict(version, Verdict(True, "better", {"backend_tags": found}))
    with serving(here.settings) as client:
        wait_until(lambda: version_of(client) == 1)
        [model, *_] = client.get("/models").json()["models"]
        assert (model["loaded"]["form"], model["loaded"]["fallback"]) == ("scikit-learn", why)
        assert figure(client, "dosel_model_fallback") == 1


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1.2_3", True), ("", False), ("x" * 65, False), ("a\tb", False), ("ü", False)]
)
def test_a_valid_request_id_of_the_client_is_returned(shared_api: TestClient, given: str, kept: bool) -> None:
    answers = [shared_api.post("/predict", json=EXAMPLE, headers={"X-Request-ID": given.encode()}) for _ in range(2)]
    names = {answer.headers["x-request-id"] for answer in answers}
    assert (names == {given}) == kept
    assert len(names) == (1 if kept else 2)


@pytest.mark.parametrize("path", ["/predict/", "/use-cases/penguins/health/", "/docs/", "/models//"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_with_a_further_slash_is_not_found(shared_api: TestClient, method: str, path: str) -> None:
    answer = shared_api.request(method, path, headers={"Host": "elsewhere.example"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert "location" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/docs", "/nowhere", "/metrics"])
def test_every_response_has_security_headers(shared_api: TestClient, path: str) -> None:
    headers = shared_api.get(path, headers={"Origin": "http://elsewhere.test"}).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


@pytest.mark.soak
def test_only_configured_origins_are_allowed(installed: Installation) -> None:
    settings = installed.settings.model_copy(update={"cors_origins": "http://page.test"})
    with serving(settings) as client:
        for origin, let_in in (("http://page.test", True), ("http://elsewhere.test", False)):
            headers = client.get("/", headers={"Origin": origin}).headers
            assert (headers.get("access-control-allow-origin") == origin) == let_in
            # A page gives feedback by the request id.
            assert "X-Dosel-Request-ID" in headers["access-control-expose-headers"]


def test_each_request_is_logged_as_a_line_of_json(api: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    name = api.get("/healthz").headers["x-request-id"]
    lines: list[str] = []

    def written() -> bool:
        lines.extend(capsys.readouterr().out.splitlines())
        return any(name in line for line in lines)

    wait_until(written)
    [line] = [json.loads(line) for line in lines if name in line]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/healthz", 200)


def test_a_log_record_is_a_line_of_json_with_its_traceback() -> None:
    try:
        raise ValueError("a\nreason")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "failed: %s", ("so",), (ValueError, error, None))
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert (json.loads(line)["message"], json.loads(line)["level"]) == ("failed: so", "error")
    assert "ValueError: a\nreason" in json.loads(line)["traceback"]


def test_uvicorn_logs_json_and_no_access_lines() -> None:
    statements = (
        "write_json(); getLogger('uvicorn.error').info('started'); getLogger('uvicorn.access').info('answered')"
    )
    program = f"from logging import getLogger; from app.http.logs import write_json; {statements}"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60).stdout
    assert [json.loads(line)["message"] for line in out.splitlines()] == ["started"]


def logged(url: str, request_ids: list[str], rows: int) -> list[dict[str, Any]]:
    """Wait until the prediction log has this many rows of these requests, and return them in order."""
    found: list[dict[str, Any]] = []

    def stored() -> bool:
        with connect(url).connect() as connection:
            query = select(ANSWERS).where(ANSWERS.c.request_id.in_(request_ids)).order_by(ANSWERS.c.row_no)
            found[:] = [dict(row) for row in connection.execute(query).mappings()]
        return len(found) == rows

    wait_until(stored)
    return found


def test_a_prediction_is_logged_with_its_features_and_probabilities(api: TestClient, installed: Installation) -> None:
    answers = [api.post(f"/predict{model}", json=EXAMPLE).raise_for_status() for model in ("", f"?model={NAME}")]
    for answer in answers:
        [row] = logged(installed.settings.warehouse_url, [answer.headers["x-dosel-request-id"]], 1)
        assert json.loads(row["features"]) == EXAMPLE
        assert json.loads(row["probabilities"]) == answer.json()["probabilities"]
        assert row["answered"] == answer.json()["prediction"]
        assert (row["version"], row["row_no"], row["rows"], row["trace_id"]) == (1, 1, 1, None)


def test_equal_features_have_equal_row_keys_in_every_format(api: TestClient, installed: Installation) -> None:
    other = EXAMPLE | {"Slope": float(EXAMPLE["Slope"]) + 1}
    padded = EXAMPLE | {"Soil_Type": f"  {EXAMPLE['Soil_Type']} ", "Slope": str(EXAMPLE["Slope"])}
    names = [
        api.post("/predict/covertype", json=row).raise_for_status().headers["x-dosel-request-id"]
        for row in (EXAMPLE, padded, other)
    ]
    keys = {row["request_id"]: row["features_key"] for row in logged(installed.settings.warehouse_url, names, 3)}
    assert keys[names[0]] == keys[names[1]] != keys[names[2]]


def test_the_log_has_the_clients_request_id_and_the_servers_own(api: TestClient, installed: Installation) -> None:
    answers = [api.post("/predict", json=EXAMPLE, headers={"X-Request-ID": "mine"}) for _ in range(2)]
    assert {answer.headers["x-request-id"] for answer in answers} == {"mine"}
    names = [answer.headers["x-dosel-request-id"] for answer in answers]
    assert len(set(names)) == 2
    assert {row["trace_id"] for row in logged(installed.settings.warehouse_url, names, 2)} == {"mine"}


@pytest.fixture(scope="module")
def logging_five(install: Install) -> Iterator[tuple[TestClient, str]]:
    """An API that logs five rows of a batch, and its data store."""
    here = install(in_production=True, logged_batch_rows=5)
    with serving(here.settings) as client:
        wait_until(lambda: version_of(client) == 1)
        yield client, here.settings.warehouse_url


@pytest.mark.parametrize(
    ("rows", "kept"), [(2, [1, 2]), (5, [1, 2, 3, 4, 5]), (6, [1, 3, 5]), (11, [1, 5, 9])], ids=str
)
@pytest.mark.parametrize("kind", ["application/json", "text/csv"])
def test_a_large_batch_is_logged_as_an_even_sample_of_rows(
    logging_five: tuple[TestClient, str], rows: int, kept: list[int], kind: str
) -> None:
    client, warehouse = logging_five
    line = ",".join(map(str, EXAMPLE.values())) + "\n"
    body = json.dumps([EXAMPLE] * rows) if kind == "application/json" else ",".join(EXAMPLE) + "\n" + line * rows
    answer = client.post("/predict/covertype/batch", content=body, headers={"Content-Type": kind})
    found = logged(warehouse, [answer.headers["x-dosel-request-id"]], len(kept))
    assert [row["row_no"] for row in found] == kept
    assert {row["rows"] for row in found} == {rows}
    assert all(json.loads(row["features"]) == EXAMPLE for row in found)


@pytest.mark.soak
def test_a_full_prediction_log_drops_and_counts_rows(install: Install) -> None:
    here = install(in_production=True, prediction_log=3)
    with serving(here.settings) as client:
        wait_until(lambda: version_of(client) == 1)

        def failing() -> Any:
            raise WarehouseError("the data store cannot be reached")

        client.app.state.record._open_store = failing  # type: ignore[attr-defined]
        client.app.state.record._store = None  # type: ignore[attr-defined]
        for _ in range(10):
            assert client.post("/predict", json=EXAMPLE).is_success
        assert figure(client, "dosel_prediction_log_dropped_total") >= 6


# Keys and rate limits.


def test_with_predict_keys_a_prediction_needs_a_key(installed: Installation) -> None:
    settings = installed.settings.model_copy(update={"predict_keys": f"page:{KEY}"})
    with serving(settings) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        for path, body in (("/predict", EXAMPLE), ("/predict/covertype/batch", [EXAMPLE])):
            assert client.post(path, json=body).status_code == 401
            assert client.post(path, json=body, headers={"X-API-Key": "wrong"}).status_code == 401
            assert client.post(path, json=body, headers={"X-API-Key": KEY}).is_success
        assert client.get("/models").is_success


def test_each_role_opens_what_it_may(installed: Installation) -> None:
    keys = {name: {"X-API-Key": f"{name}-{KEY}"} for name in ("reader", "scorer", "promoter")}
    written = ",".join(f"{name}:{name}:{header['X-API-Key']}" for name, header in keys.items())
    closed, change = "/use-cases/employees/batches", "/models/modelo_covertype_vf/rollback"
    with serving(installed.settings.model_copy(update={"keys": written})) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        assert client.get(closed).status_code == 401
        for name, header in keys.items():
            assert client.get(closed, headers=header).status_code in (200, 404)
            answered = client.post("/predict", json=EXAMPLE, headers=header)
            assert answered.status_code == (403 if name == "reader" else 200)
            if name == "reader":
                assert "reader may only read" in answered.json()["detail"]
            changed = client.post(change, json={"reason": "a try"}, headers=header)
            # There is no version to roll back to.
            assert changed.status_code == (409 if name == "promoter" else 403)


@pytest.mark.parametrize("keys", ["page", "page:short", ":" + KEY])
def test_invalid_keys_stop_the_start_with_one_line(installed: Installation, keys: str) -> None:
    with pytest.raises(SystemExit, match="DOSEL_PREDICT_KEYS"):
        create_app(installed.settings.model_copy(update={"predict_keys": keys}))


def test_requests_beyond_the_rate_get_429_with_retry_after(installed: Installation) -> None:
    settings = installed.settings.model_copy(update={"rate_limit": 0.01})
    with serving(settings) as client:
        client.get("/openapi.json").raise_for_status()
        response = client.get("/use-cases")
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) <= 100
        assert client.get("/healthz").is_success


@pytest.mark.soak
def test_each_key_and_each_address_with_invalid_keys_has_its_own_rate(installed: Installation) -> None:
    keys = {name: {"X-API-Key": f"{name}-{KEY}"} for name in ("one", "other")}
    written = ",".join(f"{name}:{header['X-API-Key']}" for name, header in keys.items())
    settings = installed.settings.model_copy(update={"predict_keys": written, "rate_limit": 0.01})
    with serving(settings) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        for header in keys.values():
            assert client.post("/predict", json=EXAMPLE, headers=header).is_success
            assert client.post("/predict", json=EXAMPLE, headers=header).status_code == 429
        guesses = [client.post("/predict", json=EXAMPLE, headers={"X-API-Key": str(i)}).status_code for i in range(3)]
        assert guesses == [401, 429, 429]
