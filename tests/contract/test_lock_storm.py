"""SQLite under many writers: nothing is lost, readers do not wait, and a wait that is too long is a clear 503.

`make attack` has the same with processes.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app.main import create_app
from dosel.db import engine as engines
from dosel.db.engine import connect
from dosel.db.tables import ANSWERS
from dosel.quality import check
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore
from dosel.warehouse.predictions import AnswerRecord, PredictionStore
from tests.contract.conftest import Installation
from tests.contract.test_api import EXAMPLE, running, version_of, wait_until
from tests.contract.test_serving import Install
from tests.integration.worlds import batch

KEY = {"X-API-Key": "k" * 20}
READS = (
    f"/models/{COVERTYPE.model_name}/history",
    "/events",
    "/use-cases/covertype/batches",
    "/use-cases/covertype/quarantine",
    "/use-cases/covertype/health",
)
FEEDBACK = "/feedback/covertype"


@pytest.fixture
def here(install: Install) -> Installation:
    made: Installation = install(in_production=True, promote_keys=f"ana:{KEY['X-API-Key']}")
    return made


@contextmanager
def answering(here: Installation) -> Iterator[TestClient]:
    """A client of an API that has already opened everything that it opens at first use."""
    app = create_app(here.settings)
    with running(app) as client:
        wait_until(lambda: version_of(client) == 1)
        for path in READS:
            client.get(path).raise_for_status()
        wait_until(lambda: app.state.record.waiting == 0)
        yield client


@contextmanager
def locked(here: Installation) -> Iterator[None]:
    """Hold a write transaction on the data store, as another process could."""
    with closing(sqlite3.connect(here.settings.home / "warehouse.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def predicted(client: TestClient) -> str:
    return str(client.post("/predict", json=EXAMPLE).raise_for_status().headers["x-dosel-request-id"])


def test_readers_do_not_wait_for_a_writer(here: Installation) -> None:
    with answering(here) as client, locked(here):
        began = time.monotonic()
        for path in READS:
            assert client.get(path).status_code == 200, path
        assert version_of(client) == 1
        assert time.monotonic() - began < 5


def test_a_write_that_waits_too_long_gets_503_with_the_reason(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "LOCK_SECONDS", 0.1)
    with answering(here) as client:
        given = [{"request_id": predicted(client), "truth": 1}]
        wait_until(lambda: client.post(FEEDBACK, json=given).is_success)
        with locked(here):
            refused = client.post(FEEDBACK, json=given)
            assert refused.status_code == 503
            assert "database is locked" in refused.json()["detail"]
            assert "does another process hold a lock?" in refused.json()["detail"]
            late = predicted(client)
        wait_until(lambda: client.post(FEEDBACK, json=[{"request_id": late, "truth": 1}]).is_success)


@pytest.mark.soak
def test_many_concurrent_writers_lose_no_rows(here: Installation, received: Callable[..., list[list[str]]]) -> None:
    url, chunks, calls = here.settings.warehouse_url, 20, 15
    second = here.registry.register(COVERTYPE, here.good[1]).version
    before = len(here.registry.ledger.history(COVERTYPE.model_name))

    def log(name: str) -> None:
        store = PredictionStore(connect(url), 10_000_000)
        for chunk in range(chunks):
            ids = (f"{name}-{chunk}-{n}" for n in range(10))
            store.append([AnswerRecord(i, 1, 1, name, 0.0, "storm", "m", 1, "{}", 0, "{}", 1) for i in ids])

    def ingest(number: int) -> None:
        rows = received(50, seed=number)
        checked = check(COVERTYPE, rows, "uci")
        BatchStore(connect(url), COVERTYPE).store(batch(rows, number), checked.accepted, checked.refused)

    with answering(here) as client, ThreadPoolExecutor(12) as pool:

        def give_feedback(_: int) -> None:
            given = [{"request_id": predicted(client), "truth": 1}]
            # While the log waits to write, the API answers 404 with Retry-After.
            wait_until(lambda: client.post(FEEDBACK, json=given).raise_for_status().is_success, 60)

        def promote(*versions: int) -> None:
            for version in versions:
                body = {"version": version, "reason": "a storm"}
                client.post(f"/models/{COVERTYPE.model_name}/promote", json=body, headers=KEY).raise_for_status()

        work = [pool.submit(log, f"writer {n}") for n in range(4)]
        work += [pool.submit(ingest, number) for number in range(1, 5)]
        work += [pool.submit(give_feedback, n) for n in range(calls)]
        work.append(pool.submit(promote, *(second, 1) * 3))
        for done in work:
            done.result(timeout=120)
    with connect(url).connect() as connection:
        query = select(func.count()).select_from(ANSWERS).where(ANSWERS.c.use_case == "storm")
        assert connection.scalar(query) == 4 * chunks * 10
    store = BatchStore(connect(url), COVERTYPE)
    assert sum(record.rows_clean for record in store.records()) == len(store.clean()) == 200
    store.audit()
    entries = here.registry.ledger.history(COVERTYPE.model_name)
    assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
    assert len(entries) == before + 6
