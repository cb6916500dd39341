"""Shadowing behind the API: a second version answers the rows of the champion, and is dropped when it may not."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.main import build_app
from app.serving.follower import ModelFollower
from app.serving.shadow_slot import ShadowSlot
from app.serving.version_loader import VersionLoader
from dosel.db.engine import connect
from dosel.db.tables import ANSWERS, SHADOW_ANSWERS
from dosel.errors import UntrustedModel
from dosel.registry.shadows import Shadow, ShadowEnd
from dosel.usecases import Shadow as Declared
from dosel.usecases import UseCase
from dosel.usecases.covertype import COVERTYPE
from tests.contract.conftest import Installation
from tests.contract.test_api import EXAMPLE, NAME, running, wait_until
from tests.contract.test_feedback import KEY

Install = Callable[..., Installation]

STICKY = COVERTYPE.numbers[0]


def shadowed(**declared: Any) -> UseCase:
    return replace(COVERTYPE, gate=replace(COVERTYPE.gate, shadow=Declared(**declared)))


@dataclass
class Served:
    """An API with version 1 in Production."""

    here: Installation
    client: TestClient

    @property
    def slot(self) -> ShadowSlot:
        state: Any = self.client.app.state  # type: ignore[attr-defined]
        slot: ShadowSlot = state.shadowing.slots[0]
        return slot

    @property
    def is_loaded(self) -> bool:
        return self.slot.plan is not None

    def start(self, **declared: Any) -> Shadow:
        """Version 2 in shadow of version 1, as declared; it need not be loaded yet."""
        self.slot.use_case = shadowed(**declared)
        registry = self.here.registry
        last = registry.last_promotion(NAME)
        assert last is not None
        return registry.start_shadow(
            registry.version(NAME, 2), "challenger", timedelta(days=1), "a test", "to see it", after=last.sequence
        )

    def end(self, shadow: Shadow) -> ShadowEnd:
        """How a shadow ended, once it has."""
        wait_until(lambda: self._found(shadow) is not None)
        found = self._found(shadow)
        assert found is not None
        return found

    def _found(self, shadow: Shadow) -> ShadowEnd | None:
        return self.here.registry.ledger.shadows(NAME)[shadow.number - 1].end

    def ask(self, **values: Any) -> tuple[str, int]:
        """The request id and the version of an answer."""
        answer = self.client.post("/predict", json=EXAMPLE | values).raise_for_status()
        return answer.headers["x-dosel-request-id"], answer.json()["model"]["version"]

    def rows(self, table: Any) -> list[Any]:
        with connect(self.here.settings.warehouse_url).connect() as connection:
            return list(connection.execute(select(table).order_by(table.c.id)))


@pytest.fixture(scope="module")
def module_served(install: Install) -> Iterator[Served]:
    here, use_case = install(logged_batch_rows=5, promote_keys=f"ana:{KEY['X-API-Key']}"), shadowed()
    here.promote(here.good[0])
    here.registry.register(COVERTYPE, here.good[1])
    app = build_app(here.settings, ModelFollower(here.settings, [use_case]), [use_case], use_case)
    with running(app) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        yield Served(here, client)


@pytest.fixture
def decisions() -> list[str]:
    """The use cases that were judged, in order."""
    return []


@pytest.fixture
def served(module_served: Served, decisions: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Without a shadow at the beginning and at the end. Nothing is ever proven."""

    def decide(use_case: UseCase, *_: Any) -> list[ShadowEnd]:
        decisions.append(use_case.name)
        return []

    monkeypatch.setattr("dosel.monitor.shadowing.decide", decide)
    yield module_served
    registry = module_served.here.registry
    for shadow in registry.ledger.open_shadows(NAME):
        registry.end_shadow(shadow, ShadowEnd("stopped", "a test", "its end"))
    wait_until(lambda: not module_served.slot.open and not module_served.is_loaded)


@pytest.fixture
def loaded(served: Served) -> Served:
    """With version 2 in shadow."""
    served.start()
    wait_until(lambda: served.is_loaded)
    return served


def test_both_versions_answer_under_one_request_id(loaded: Served) -> None:
    one, _ = loaded.ask()
    many = loaded.client.post("/predict/covertype/batch", json=[EXAMPLE] * 11).raise_for_status()
    family = f"/predict?model={COVERTYPE.families[0].name}"
    other = loaded.client.post(family, json=EXAMPLE).raise_for_status().headers["x-dosel-request-id"]
    wait_until(lambda: len(loaded.rows(SHADOW_ANSWERS)) >= 4 and len(loaded.rows(ANSWERS)) >= 5)
    found = {(a.request_id, a.row_no): a for a in loaded.rows(SHADOW_ANSWERS)}
    logged = {(a.request_id, a.row_no): a for a in loaded.rows(ANSWERS)}
    bulk = many.headers["x-dosel-request-id"]
    assert set(found) == {(one, 1), (bulk, 1), (bulk, 5), (bulk, 9)}
    assert set(logged) == {*found, (other, 1)}
    assert {logged[key].version for key in found} == {1}
    answer = found[one, 1]
    assert (answer.model, answer.number, answer.counted) == (NAME, 1, None)
    assert answer.answered in COVERTYPE.target.labels
    assert sum(json.loads(answer.probabilities).values()) == pytest.approx(1)
    assert 0 < answer.latency < 1000
    assert 0 < answer.champion_latency < 1000
    assert found[bulk, 1].champion_latency is None


def test_new_labels_are_judged_soon(loaded: Served, decisions: list[str]) -> None:
    name, _ = loaded.ask()
    wait_until(lambda: bool(decisions))
    decisions.clear()
    loaded.client.post("/feedback/covertype", json=[{"request_id": name, "truth": 2}]).raise_for_status()
    wait_until(lambda: bool(decisions), 5)
    assert name in {answer.request_id for answer in loaded.rows(SHADOW_ANSWERS)}


def test_rows_are_dropped_and_counted_when_the_queue_is_full(loaded: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.serving.shadow_answers.WAITING", 0)
    before = loaded.slot.dropped
    loaded.ask()
    assert loaded.slot.dropped == before + 1


class Faulty:
    """A predictor that cannot answer, or whose answers are not numbers."""

    def __init__(self, real: Any, crashes: bool) -> None:
        self._real, self._crashes = real, crashes

    def one(self, numbers: Any, codes: Any) -> Any:
        if self._crashes:
            raise ValueError("a secret value")
        found = self._real.one(numbers, codes)
        return replace(found, probabilities=dict.fromkeys(found.probabilities, float("nan")))


@pytest.mark.parametrize("share", [0.0, 0.999])
@pytest.mark.parametrize(
    ("crashes", "reason"),
    [(True, "it could not answer a row (ValueError)"), (False, "it gave probabilities that are not numbers")],
)
def test_a_version_with_a_fault_leaves_shadow_and_the_champion_goes_on(
    served: Served, crashes: bool, reason: str, share: float
) -> None:
    shadow = served.start(share=share, sticky_by=STICKY.name)
    wait_until(lambda: served.is_loaded)
    faulty = served.slot.running[shadow.number]
    predictor: Any = Faulty(faulty.loaded.predictor, crashes)
    faulty.loaded = replace(faulty.loaded, predictor=predictor)
    assert {served.ask()[1] for _ in range(5)} == {1}
    end = served.end(shadow)
    assert (end.outcome, end.actor, end.reason) == ("stopped", "serving", reason)
    wait_until(lambda: not served.is_loaded)
    assert served.ask()[1] == 1


def test_a_version_that_needs_too_much_memory_leaves_shadow(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([0, 900e6, 100e6, 900e6])
    memory = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=next(sizes)))
    monkeypatch.setattr("app.serving.shadow_follower.psutil", SimpleNamespace(Process=lambda: memory))
    end = served.end(served.start())
    assert end.reason == "it takes 800 MB of memory, and DOSEL_SHADOW_MEMORY_MB allows 300 MB"
    assert served.ask()[1] == 1


def test_a_version_that_is_not_the_registered_one_leaves_shadow(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise UntrustedModel("its files are not those that were registered")

    monkeypatch.setattr(VersionLoader, "load", refuse)
    end = served.end(served.start())
    assert end.reason == "it cannot be loaded: its files are not those that were registered"
    assert served.ask()[1] == 1


def test_a_shadow_that_the_ledger_has_ended_is_dropped(loaded: Served) -> None:
    registry = loaded.here.registry
    [shadow] = registry.ledger.open_shadows(NAME)
    registry.end_shadow(shadow, ShadowEnd("refused", "a test", "to see it go"))
    wait_until(lambda: not loaded.is_loaded)
    assert loaded.slot.running == {}


def test_a_change_of_production_ends_shadowing(loaded: Served) -> None:
    registry = loaded.here.registry
    registry.promote(registry.version(NAME, 2), "a test", "to see the champion change")
    wait_until(lambda: loaded.ask()[1] == 2 and not loaded.is_loaded)
    registry.roll_back(NAME, "a test", "to go on")
    wait_until(lambda: loaded.ask()[1] == 1)


def test_a_canary_gets_its_share_of_the_requests_and_equal_values_get_the_same_version(served: Served) -> None:
    served.start(share=0.5, sticky_by=STICKY.name)
    wait_until(lambda: served.is_loaded)
    values = range(int(STICKY.minimum), int(STICKY.minimum) + 60)
    versions = [served.ask(**{STICKY.name: value})[1] for value in values]
    assert 15 < versions.count(2) < 45
    answers = dict(served.ask(**{STICKY.name: value}) for value in values)
    assert list(answers.values()) == versions
    bulk = served.client.post("/predict/covertype/batch", json=[EXAMPLE | {STICKY.name: v} for v in values])
    assert bulk.json()["model"]["version"] == 1
    by_champion = {name for name, version in answers.items() if version == 1}
    wait_until(lambda: answers.keys() <= {a.request_id for a in served.rows(ANSWERS)})
    wait_until(lambda: by_champion <= {a.request_id for a in served.rows(SHADOW_ANSWERS)})
    logged = {a.request_id: a.version for a in served.rows(ANSWERS)}
    assert {name: logged[name] for name in answers} == answers
    assert not (answers.keys() - by_champion) & {a.request_id for a in served.rows(SHADOW_ANSWERS)}
