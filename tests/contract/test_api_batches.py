"""The batch ledger and the quarantine over HTTP."""

from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from fastapi.testclient import TestClient

from app.main import build_app
from app.serving.follower import ModelFollower
from dosel.db.engine import connect
from dosel.quality import check
from dosel.settings import Settings
from dosel.sources.base import Batch
from dosel.usecases import ALL, DEFAULT
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore
from tests.contract.conftest import Installation

LEDGER = "/use-cases/covertype/batches"
QUARANTINE = "/use-cases/covertype/quarantine"
BAD = ["many"] * 13


def client_of(settings: Settings) -> TestClient:
    return TestClient(build_app(settings, ModelFollower(settings, ALL), ALL, DEFAULT), raise_server_exceptions=False)


@pytest.fixture
def client(install: Callable[..., Installation], received: Callable[..., list[list[str]]]) -> TestClient:
    """A client of an installation with two batches, each with some refused rows."""
    settings = install().settings
    store = BatchStore(connect(settings.warehouse_url), COVERTYPE)
    for number, bad in ((1, [BAD]), (2, [BAD, ["short"], [*BAD, "surplus"]])):
        sent = [*received(5), *bad]
        checked = check(COVERTYPE, sent, "uci")
        batch = Batch("http://data.test/data", "group 6", "e1", number, sent)
        assert store.store(batch, checked.accepted, checked.refused)
    return client_of(settings)


def get(client: TestClient, path: str, schema: str) -> dict[str, Any]:
    response = client.get(path)
    assert response.status_code == 200
    body: dict[str, Any] = response.json()
    document = client.get("/openapi.json").json()
    jsonschema.validate(body, {"$ref": f"#/components/schemas/{schema}", "components": document["components"]})
    return body


def test_the_batch_ledger_shows_the_counts_of_each_batch(client: TestClient) -> None:
    ledger = get(client, LEDGER, "Batches")
    assert ledger["refused"] == []
    assert {name: ledger[name] for name in ledger if name not in ("batches", "refused")} == {
        "count": 2,
        "rows_received": 14,
        "rows_clean": 5,
        "rows_refused": 4,
        "rows_duplicate": 5,
    }
    newest, oldest = ledger["batches"]
    assert (newest["number"], oldest["number"]) == (2, 1)
    assert (newest["stream"], newest["epoch"], newest["source"]) == ("group 6", "e1", "http://data.test/data")
    assert len(newest["digest"]) == 64
    assert (newest["refused_share"], newest["duplicate_share"]) == (3 / 8, 5 / 8)
    assert len(get(client, f"{LEDGER}?limit=1", "Batches")["batches"]) == 1


def test_batches_refused_as_a_whole_are_listed(install: Callable[..., Installation]) -> None:
    settings = install().settings
    store = BatchStore(connect(settings.warehouse_url), COVERTYPE)
    for number in (1, 2):
        store.refuse(Batch("here", "group 6", "e1", number, [BAD, BAD]), {0: "bad", 1: "worse"}, "too many are bad")
    newest, _ = get(client_of(settings), LEDGER, "Batches")["refused"]
    assert (newest["number"], newest["rows_received"], newest["rows_refused"], newest["refused_share"]) == (2, 2, 2, 1)
    assert (newest["reason"], newest["first_reasons"]) == ("too many are bad", ["row 1: bad", "row 2: worse"])


def test_the_quarantine_shows_the_reason_and_values_of_each_refused_row(client: TestClient) -> None:
    rows = get(client, QUARANTINE, "Quarantine")["rows"]
    assert [(row["number"], row["row_no"]) for row in rows] == [(2, 5), (2, 6), (2, 7), (1, 5)]
    first, short, long, _ = rows
    assert first["reason"].startswith('Elevation: expected a whole number from 1800 to 4000 m, got "many"')
    assert list(first["values"]) == list(COVERTYPE.columns)
    assert short["values"] == dict.fromkeys(COVERTYPE.columns) | {"Elevation": "short"}
    assert long["surplus"] == '["surplus"]'
    assert len(get(client, f"{QUARANTINE}?limit=2", "Quarantine")["rows"]) == 2
    assert len(get(client, f"{QUARANTINE}?batch=1", "Quarantine")["rows"]) == 1


@pytest.mark.parametrize("path", ["/use-cases/none/batches", "/use-cases/none/quarantine"])
def test_an_unknown_use_case_gets_404(path: str, client: TestClient) -> None:
    response = client.get(path)
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert response.json()["detail"] == f"no use case 'none'; there are: {', '.join(u.name for u in ALL)}"


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "batch=x", "batch=0", f"batch={2**63}"])
def test_an_invalid_query_gets_422(query: str, client: TestClient) -> None:
    response = client.get(f"{QUARANTINE}?{query}")
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")


def test_an_unreachable_data_store_gets_503(install: Callable[..., Installation]) -> None:
    settings = install(warehouse_url="mysql+pymysql://someone:hush@127.0.0.1:1/datadb").settings
    response = client_of(settings).get(LEDGER)
    assert response.status_code == 503
    assert "is it running?" in response.json()["detail"]
    assert "hush" not in response.text
