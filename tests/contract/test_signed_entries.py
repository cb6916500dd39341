"""The API follows only signed entries of the promotion ledger, whoever owns the database, and never goes back in it."""

import json
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, insert, select

from app.main import create_app
from dosel.db import chain
from dosel.db.engine import connect, transaction
from dosel.db.tables import CHAIN, CHAIN_HEAD, ENTRY_SIGNATURES, PROMOTIONS, VERDICTS
from dosel.entry_signatures import write_entry_key
from dosel.registry.heads import publish
from dosel.registry.newest_entries import file_of, newest_entry
from dosel.registry.registry import Registry
from dosel.settings import Settings
from dosel.signing import signing_key
from dosel.usecases.covertype import COVERTYPE
from tests.conftest import until
from tests.contract.conftest import Installation
from tests.contract.test_registry_api import HISTORY, KEY, NAME, answering, prepared
from tests.ledgers import drop_triggers

PROMOTE = f"/models/{NAME}/promote"


@pytest.fixture
def here(install: Callable[..., Installation]) -> Installation:
    return prepared(install)


def as_owner(here: Installation, *statements: Any) -> None:
    """Change the database as its owner, and compute the chain again."""
    with transaction(connect(here.settings.warehouse_url)) as connection:
        drop_triggers(connection)
        for statement in (*statements, delete(CHAIN), delete(CHAIN_HEAD)):
            connection.execute(statement)
        chain.start(connection)


def forged(here: Installation) -> dict[str, Any]:
    """A promotion of version 2, whose files are signed."""
    with connect(here.settings.warehouse_url).connect() as connection:
        known = dict(connection.execute(select(PROMOTIONS).order_by(PROMOTIONS.c.id)).mappings().all()[0])
    return known | {"id": 2, "sequence": 2, "from_version": 1, "to_version": 2, "to_run": here.good[1]}


def test_a_forged_entry_is_not_served(here: Installation) -> None:
    with TestClient(create_app(here.settings)) as api:
        assert answering(api) == 1
        as_owner(here, insert(PROMOTIONS).values(forged(here)))
        assert answering(api) == 1
        here.registry.reconcile(NAME)
        history = api.get(HISTORY).json()
        assert [entry["to_version"] for entry in history["entries"]] == [1]
        assert "entries without the signature of a trusted key (2), which are" in history["notes"][-1]["text"]
        # Production goes on beside it.
        assert api.post(PROMOTE, headers=KEY, json={"version": 2, "reason": "better"}).json()["sequence"] == 3
        assert answering(api) == 2
        as_owner(here, insert(PROMOTIONS).values(forged(here) | {"id": 9, "sequence": 4, "to_version": 1}))
        # It is not among the versions to which a rollback may return either.
        assert api.post(f"/models/{NAME}/rollback", headers=KEY, json={}).json()["to_version"] == 1
    with TestClient(create_app(here.settings)) as api:
        assert answering(api) == 1


def test_a_version_that_a_forged_verdict_lets_in_is_not_followed(here: Installation) -> None:
    verdict = {"model": NAME, "version": 2, "run_id": here.good[1], "at": datetime(2026, 1, 1), "passed": 1}
    with TestClient(create_app(here.settings)) as api:
        as_owner(here, insert(VERDICTS).values(verdict | {"reason": "better", "report": "{}"}))
        here.registry.store.set_alias(NAME, "production", 2)
        assert answering(api) == 1
        assert "neither the gate nor a person let version 2" in api.get(HISTORY).json()["notes"][-1]["text"]


@pytest.mark.soak
@pytest.mark.parametrize("removed", ["the entry", "its signature"])
def test_a_ledger_that_was_cut_is_not_followed_back(removed: str, here: Installation) -> None:
    with TestClient(create_app(here.settings)) as api:
        api.post(PROMOTE, headers=KEY, json={"version": 2, "reason": "better"}).raise_for_status()
        assert answering(api) == 2
        entry = PROMOTIONS.c.sequence == 2, ENTRY_SIGNATURES.c.row_key == "[2]"
        which = (
            delete(PROMOTIONS).where(entry[0]) if removed == "the entry" else delete(ENTRY_SIGNATURES).where(entry[1])
        )
        as_owner(here, which)
        response = api.post("/warmup")
        assert response.status_code == 503
        assert "ends at entry 1, and entry 2 has been followed or signed" in response.json()["detail"]
        assert api.post("/predict", json={}).status_code == 422
    # A start reads what it followed from its disk.
    with TestClient(create_app(here.settings)) as api:
        assert "entry 2 has been followed or signed" in api.post("/warmup").json()["detail"]


def test_a_new_api_knows_the_newest_entry_of_a_ledger_that_was_cut(here: Installation) -> None:
    """Its disk is empty, so it reads what the pipeline has signed outside the database."""
    with TestClient(create_app(here.settings)) as api:
        api.post(PROMOTE, headers=KEY, json={"version": 2, "reason": "better"}).raise_for_status()
    as_owner(here, delete(PROMOTIONS).where(PROMOTIONS.c.sequence == 2))
    publish(connect(here.settings.warehouse_url), here.settings)
    shutil.rmtree(here.settings.home / "serving")
    with TestClient(create_app(here.settings)) as api:
        assert "entry 2 has been followed or signed" in api.post("/warmup").json()["detail"]
        assert api.post("/predict", json=COVERTYPE.example).status_code == 503
    file = file_of(here.settings)
    edited = json.loads(file.read_text()) | {"entries": {NAME: 1}}
    file.write_text(json.dumps(edited))
    assert newest_entry(here.settings, NAME) == 0


@pytest.mark.soak
def test_after_the_upgrade_the_api_answers_and_waits_for_signatures(here: Installation) -> None:
    with TestClient(create_app(here.settings)) as api:
        assert answering(api) == 1
    as_owner(here, delete(ENTRY_SIGNATURES))
    with TestClient(create_app(here.settings)) as api:
        until(lambda: api.post("/predict", json=COVERTYPE.example).is_success, 30)
        response = api.post("/warmup")
        assert "no entry of the promotion ledger has the signature of a trusted key" in response.json()["detail"]
        assert "run `dosel sign`" in response.json()["detail"]
        assert "version 1 keeps answering" in response.json()["detail"]
        assert here.registry.store.alias(NAME, "production") == 1
        here.registry.ledger.sign_older(every=False)
        assert answering(api) == 1


def test_an_api_without_the_signing_key_promotes_with_its_entry_key(here: Installation, tmp_path: Path) -> None:
    key = signing_key(here.settings)
    assert key is not None
    (tmp_path / "trusted.pem").write_bytes(b"".join(public.pem() for public in key.both.values()))
    names = {"trusted_keys": str(tmp_path / "trusted.pem"), "entry_key": str(tmp_path / "entry.json")}
    settings: Settings = here.settings.model_copy(update=names | {"signing_key": "none"})
    with TestClient(create_app(settings)) as api:
        refused = api.post(PROMOTE, headers=KEY, json={"version": 2, "reason": "better"})
        assert refused.status_code == 503
        assert "DOSEL_ENTRY_KEY names no key that the pipeline has made" in refused.json()["detail"]
        write_entry_key(here.settings.model_copy(update=names))
        assert api.post(PROMOTE, headers=KEY, json={"version": 2, "reason": "better"}).status_code == 200
        assert answering(api) == 2
    last = Registry.opened(here.settings).last_promotion(NAME)
    assert last is not None
    assert last.to_version == 2
