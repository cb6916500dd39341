"""A shadow answers in the API: a second version answers the champion's rows, and leaves shadow when it fails."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from math import inf
from types import SimpleNamespace
from typing import Any

import pandas as pd
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
from dosel.registry.ledger import PromotionLedger
from dosel.registry.shadows import ShadowEnd, ShadowRecord
from dosel.rows import frames
from dosel.usecases import Approval, Shadow, UseCase
from dosel.usecases.covertype import COVERTYPE
from tests.contract.conftest import Installation
from tests.contract.test_api import EXAMPLE, NAME, running, serving, wait_until
from tests.contract.test_feedback import KEY
from tests.contract.test_serving import figure

Install = Callable[..., Installation]

STICKY = COVERTYPE.numbers[0]


def shadowed(**declared: Any) -> UseCase:
    return replace(COVERTYPE, gate=replace(COVERTYPE.gate, shadow=Shadow(**declared)))


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

    def is_shadowing(self, champion: int) -> bool:
        return self.slot.plan is not None and self.slot.plan.champion == champion

    def start(self, **declared: Any) -> ShadowRecord:
        """Start version 2 in shadow of version 1 as declared, without waiting until it is loaded."""
        self.slot.use_case = shadowed(**declared)
        registry = self.here.registry
        last = registry.last_promotion(NAME)
        assert last is not None
        return registry.start_shadow(
            registry.version(NAME, 2), "challenger", timedelta(days=1), "a test", "to see it", after=last.sequence
        )

    def end(self, shadow: ShadowRecord) -> ShadowEnd:
        """Wait until a shadow has ended, and return its end."""
        wait_until(lambda: self._found(shadow) is not None)
        found = self._found(shadow)
        assert found is not None
        return found

    def _found(self, shadow: ShadowRecord) -> ShadowEnd | None:
        return self.here.registry.ledger.shadows(NAME)[shadow.number - 1].end

    def ask(self, **values: Any) -> tuple[str, int]:
        """The request id and the version of an answer."""
        answer = self.client.post("/predict", json=EXAMPLE | values).raise_for_status()
        return answer.headers["x-dosel-request-id"], answer.json()["model"]["version"]

    def is_answering(self, version: int) -> bool:
        return self.ask()[1] == version

    def rows(self, table: Any) -> list[Any]:
        with connect(self.here.settings.warehouse_url).connect() as connection:
            return list(connection.execute(select(table).order_by(table.c.id)))


@pytest.fixture(scope="module")
def module_served(install: Install) -> Iterator[Served]:
    """An API whose shadows always get processor time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.serving.shadow_limits.BUSY", inf)
        yield from _served(install)


def _served(install: Install) -> Iterator[Served]:
    here, use_case = (
        install(in_production=True, logged_batch_rows=5, promote_keys=f"ana:{KEY['X-API-Key']}"),
        shadowed(),
    )
    here.registry.register(COVERTYPE, here.good[1])
    app = build_app(here.settings, ModelFollower(here.settings, [use_case]), [use_case], use_case)
    with running(app) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        yield Served(here, client)


@pytest.fixture
def decisions() -> list[str]:
    """The use cases for which a decision was made, in order."""
    return []


@pytest.fixture
def served(module_served: Served, decisions: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """An API without a shadow before and after the test, in which no decision is ever proven."""

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
def real_decisions(module_served: Served) -> Iterator[None]:
    yield
    module_served.slot.use_case = shadowed(watch_back=False)


@pytest.fixture
def loaded(served: Served) -> Served:
    """An API with version 2 in shadow and loaded."""
    served.start()
    wait_until(lambda: served.is_loaded)
    return served


def test_champion_and_shadow_answer_with_one_request_id(loaded: Served) -> None:
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


@pytest.mark.soak
def test_new_labels_lead_to_a_decision_soon(loaded: Served, decisions: list[str]) -> None:
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
    """A predictor that raises an error or returns NaN."""

    def __init__(self, real: Any, crashes: bool) -> None:
        self._real, self._crashes = real, crashes

    def one(self, numbers: Any, codes: Any, wait: bool = True) -> Any:
        if self._crashes:
            raise ValueError("a secret value")
        found = self._real.one(numbers, codes)
        return replace(found, probabilities=dict.fromkeys(found.probabilities, float("nan")))

    def scores(self, numbers: Any, codes: Any) -> Any:
        found = self._real.scores(numbers, codes)
        return replace(found, probabilities=found.probabilities * float("nan"))


@pytest.mark.soak
@pytest.mark.parametrize("share", [0.0, 0.999])
@pytest.mark.parametrize(
    ("crashes", "reason"),
    [(True, "it could not answer a row (ValueError)"), (False, "it gave probabilities that are not numbers")],
)
def test_a_failing_version_leaves_shadow_and_the_champion_keeps_answering(
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


@pytest.mark.soak
def test_a_version_that_needs_too_much_memory_leaves_shadow(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([0, 900e6, 100e6, 900e6])
    memory = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=next(sizes)))
    monkeypatch.setattr("app.serving.shadow_follower.psutil", SimpleNamespace(Process=lambda: memory))
    end = served.end(served.start())
    assert end.reason == "it takes 800 MB of memory, and DOSEL_SHADOW_MEMORY_MB allows 300 MB"
    assert served.ask()[1] == 1


def test_a_version_whose_files_differ_from_the_registered_ones_leaves_shadow(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise UntrustedModel("its files are not those that were registered")

    monkeypatch.setattr(VersionLoader, "load", refuse)
    end = served.end(served.start())
    assert end.reason == "it cannot be loaded: its files are not those that were registered"
    assert served.ask()[1] == 1


@pytest.mark.soak
def test_a_shadow_that_ended_in_the_ledger_is_unloaded(loaded: Served) -> None:
    registry = loaded.here.registry
    [shadow] = registry.ledger.open_shadows(NAME)
    registry.end_shadow(shadow, ShadowEnd("refused", "a test", "to see it go"))
    wait_until(lambda: not loaded.is_loaded)
    assert loaded.slot.running == {}


def test_open_shadows_are_verified_again_from_time_to_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verifying takes milliseconds in which requests wait, and polls come twice a second."""
    calls: Counter[str] = Counter()

    def count(name: str) -> None:
        real = getattr(PromotionLedger, name)

        def counted(*given: Any) -> Any:
            calls[name] += 1
            return real(*given)

        monkeypatch.setattr(PromotionLedger, name, counted)

    count("shadow_counts")
    count("open_shadows")
    monkeypatch.setattr("app.serving.shadow_follower.READ_SECONDS", 0)
    served.start()
    wait_until(lambda: served.is_loaded)
    verified = calls["open_shadows"]
    wait_until(lambda: calls["open_shadows"] >= verified + 3)
    monkeypatch.setattr("app.serving.shadow_follower.READ_SECONDS", 60)
    calls.clear()
    wait_until(lambda: calls["shadow_counts"] >= 5)
    assert calls["open_shadows"] <= 1


@pytest.mark.soak
def test_a_change_of_production_ends_the_shadow(loaded: Served) -> None:
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
    named = (served.client.post("/predict/covertype?version=1", json=EXAMPLE | {STICKY.name: v}) for v in values)
    assert {response.json()["model"]["version"] for response in named} == {1}
    by_champion = {name for name, version in answers.items() if version == 1}
    wait_until(lambda: answers.keys() <= {a.request_id for a in served.rows(ANSWERS)})
    wait_until(lambda: by_champion <= {a.request_id for a in served.rows(SHADOW_ANSWERS)})
    logged = {a.request_id: a.version for a in served.rows(ANSWERS)}
    assert {name: logged[name] for name in answers} == answers
    assert not (answers.keys() - by_champion) & {a.request_id for a in served.rows(SHADOW_ANSWERS)}


@pytest.mark.usefixtures("real_decisions")
def test_labels_promote_the_better_version_and_can_roll_it_back(module_served: Served) -> None:
    served = module_served
    # Each row gets one label: first the answers of version 2 are true, then those of version 1.
    registry = served.here.registry
    served.start(min_labels=5)
    wait_until(lambda: served.is_loaded)
    models = {v: registry.load(registry.version(NAME, v)) for v in (1, 2)}
    rows = [EXAMPLE | {STICKY.name: value} for value in range(int(STICKY.minimum), int(STICKY.maximum), 50)]
    frame = frames.canonical(COVERTYPE, pd.DataFrame(rows))
    answers = {v: model.predict(frame).tolist() for v, model in models.items()}
    different = [place for place in range(len(rows)) if answers[1][place] != answers[2][place]]
    for right, wrong, kind in ((2, 1, "shadow"), (1, 2, "rollback")):
        # After the promotion, the ended shadow stays loaded until the next poll.
        wait_until(partial(served.is_shadowing, wrong))
        asked = [(served.ask(**rows[place]), answers[right][place]) for place in different]
        assert {version for (_, version), _ in asked} == {wrong}
        truth = [{"request_id": name, "truth": code} for (name, _), code in asked]
        served.client.post("/feedback/covertype", json=truth).raise_for_status()
        wait_until(partial(served.is_answering, right))
        last = registry.last_promotion(NAME)
        assert last is not None
        assert (last.to_version, last.evidence.kind) == (right, kind)
        assert last.evidence.live is not None
        assert last.evidence.live["labels"] == len(different)
    wait_until(lambda: not served.is_loaded)


# Over HTTP.

SHOW = f"/use-cases/{COVERTYPE.name}/shadow"
STOP = f"/models/{NAME}/shadow/stop"


@pytest.mark.soak
def test_a_promotion_by_hand_that_waits_for_a_second_person_is_accepted(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dosel.registry.approvals.ALL", (replace(COVERTYPE, approval=Approval(people=2)),))
    shadow = served.start()
    body = {"reason": "looks better"}
    response = served.client.post(f"/models/{NAME}/shadow/promote", headers=KEY, json=body)
    assert response.status_code == 202, response.text
    assert (response.json()["version"], response.json()["approved_by"]) == (2, ["ana"])
    assert served.here.registry.ledger.open_shadows(NAME)[0].number == shadow.number
    served.client.post(STOP, headers=KEY, json=body).raise_for_status()
    assert served.end(shadow).outcome == "stopped"


def figures(served: Served, *names: str) -> list[float]:
    return [figure(served.client, name) for name in names]


def test_versions_in_shadow_are_shown_with_the_rows_of_different_answers(
    loaded: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    [shadow] = loaded.here.registry.ledger.open_shadows(NAME)
    values = range(int(STICKY.minimum), int(STICKY.maximum), 50)
    sent = {loaded.ask(**{STICKY.name: value})[0]: value for value in values}
    by_beginning = {name[:14]: value for name, value in sent.items()}

    def shown() -> Any:
        [found] = loaded.client.get(SHOW).raise_for_status().json()["shadows"]
        return found

    wait_until(lambda: shown()["answers"] == len(sent) and shown()["agreement"] is not None)
    # Predictions and shadow answers are written at different times.
    wait_until(lambda: sent.keys() <= {answer.request_id for answer in loaded.rows(ANSWERS)})
    found = shown()
    assert (found["number"], found["role"], found["version"], found["champion"]) == (shadow.number, "challenger", 2, 1)
    assert (found["loaded"], found["waiting_for"], found["reason"]) == (True, None, "to see it")
    assert (found["evidence"]["labels"], found["evidence"]["e_value"], found["evidence"]["finding"]) == (0, 1.0, None)
    assert "labelled rows" in found["now"]
    assert 0 < found["latency_ms"] < 1000
    different = found["disagreements"]
    assert 0 < len(different) < 20
    assert found["agreement"] == pytest.approx(1 - len(different) / len(sent))
    for row in different:
        assert row["values"] == EXAMPLE | {STICKY.name: by_beginning[row["request_id"].removesuffix("…")]}
        assert row["champion"] != row["shadow"]
        assert (row["row"], row["truth"]) == (1, None)
    monkeypatch.setattr(loaded.slot, "use_case", replace(loaded.slot.use_case, expose_training_rows=False))
    hidden = shown()["disagreements"]
    assert {value for row in hidden for value in row["values"].values()} == {"hidden"}
    assert {row["truth"] for row in hidden} == {None}


def test_metrics_count_shadow_answers(loaded: Served) -> None:
    answered, dropped = figures(loaded, "dosel_shadow_answered_total", "dosel_shadow_dropped_total")
    loaded.ask()
    wait_until(lambda: figures(loaded, "dosel_shadow_answered_total") == [answered + 1])
    assert figures(loaded, "dosel_shadow_dropped_total", "dosel_shadow_waiting", "dosel_shadow_loaded") == [
        dropped,
        0,
        1,
    ]


def test_labels_and_evidence_of_a_shadow_are_metrics(loaded: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.http.store_metrics.FRESH_SECONDS", 0)
    wait_until(lambda: "dosel_shadow_labels{" in loaded.client.get("/metrics").text)
    assert figures(loaded, "dosel_shadow_labels") == [0]
    assert figure(loaded.client, "dosel_shadow_e_value", kind="better", version="2", role="challenger") == 1


def test_without_a_shadow_the_list_is_empty_and_stopping_gets_409(served: Served) -> None:
    assert served.client.get(SHOW).json() == {"shadows": []}
    response = served.client.post(STOP, headers=KEY, json={"reason": "x"})
    assert response.status_code == 409
    assert "no version is in shadow as challenger" in response.json()["detail"]


def test_a_person_with_a_key_stops_a_shadow(loaded: Served) -> None:
    end = loaded.client.post(STOP, headers=KEY, json={"reason": "enough"}).raise_for_status().json()
    assert (end["outcome"], end["actor"], end["reason"]) == ("stopped", "API key ana", "enough")
    assert end["evidence"]["labels"] == 0
    wait_until(lambda: not loaded.is_loaded)
    assert loaded.ask()[1] == 1


def test_a_person_with_a_key_promotes_the_version_in_shadow(loaded: Served) -> None:
    path = f"/models/{NAME}/shadow/promote"
    end = loaded.client.post(path, headers=KEY, json={"reason": "sure"}).raise_for_status().json()
    assert end["outcome"] == "promoted"
    wait_until(lambda: loaded.ask()[1] == 2)
    loaded.here.registry.roll_back(NAME, "a test", "to go on")
    wait_until(lambda: loaded.ask()[1] == 1)


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "message"),
    [
        (STOP, {}, {"reason": "x"}, 401, "X-API-Key"),
        (f"/models/{NAME}/shadow/praise", KEY, {"reason": "x"}, 422, "action"),
        (STOP, KEY, {}, 422, "reason: expected"),
        (STOP, KEY, {"reason": "x", "role": "judge"}, 422, "role: expected"),
        (STOP, KEY, {"reason": "x", "version": 2}, 422, "no field of this name"),
        ("/models/nobody/shadow/stop", KEY, {"reason": "x"}, 404, NAME),
    ],
)
def test_a_refused_decision_gets_the_reason(
    served: Served, path: str, headers: Any, body: Any, status: int, message: str
) -> None:
    response = served.client.post(path, headers=headers, json=body)
    assert response.status_code == status
    assert message in response.json()["detail"]


def test_an_unknown_use_case_has_no_shadows(served: Served) -> None:
    assert served.client.get("/use-cases/nobody/shadow").status_code == 404


def test_shadows_cannot_be_stopped_over_http_without_promote_keys(install: Install) -> None:
    with serving(install().settings) as client:
        response = client.post(STOP, headers=KEY, json={"reason": "x"})
        assert response.status_code == 403
        assert "neither DOSEL_KEYS nor DOSEL_PROMOTE_KEYS has a promoter" in response.json()["detail"]
