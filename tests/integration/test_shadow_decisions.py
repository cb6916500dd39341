"""Decisions on shadows: labels promote or refuse a challenger, and can bring the control back."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from dosel.db.engine import connect, transaction
from dosel.db.tables import SHADOWS
from dosel.errors import DeclarationChanged, PromotionRefused
from dosel.monitor.canary import Draw
from dosel.monitor.shadow_state import states
from dosel.monitor.shadowing import Action, _decision, decide, end_by_hand, promote
from dosel.pipeline import Pipeline
from dosel.quality import check
from dosel.registry.registry import Registry
from dosel.registry.shadows import ShadowEnd
from dosel.rows import frames
from dosel.usecases import Approval, Monitor, Shadow, UseCase
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.events import Event, EventStore
from tests.integration.test_canary_rows import label
from tests.integration.test_watch import with_wrong_labels
from tests.integration.worlds import FAMILIES, Deliveries, World, batch
from tests.ledgers import drop_triggers

Rows = Callable[..., list[list[str]]]

RULES = Shadow(min_labels=50, max_days=7)


def declared(family: str, rules: Shadow | None = RULES, monitor: Monitor | None = None) -> UseCase:
    use_case = FAMILIES[family]
    return dataclasses.replace(
        use_case, gate=dataclasses.replace(use_case.gate, shadow=rules), monitor=monitor or use_case.monitor
    )


class Life:
    """A use case with the poor version in Production and the good one in shadow."""

    def __init__(self, world: World, first: str = "poor", then: str = "good") -> None:
        self.world = world
        self.name = world.name
        self.engine = connect(world.settings.warehouse_url)
        self.batches = 1
        world.prepared(f"{then} in shadow", lambda: self.enter(first, then))

    def pipeline(self, family: str = "good", **changes: Any) -> Pipeline:
        return Pipeline(declared(family, **changes), self.world.settings)

    def enter(self, first: str, then: str) -> None:
        assert self.pipeline(first).challenge(self.world.register(first), "a test").promoted
        outcome = self.pipeline(then).challenge(self.world.register(then), "a test")
        assert (outcome.promoted, outcome.in_shadow) == (False, True)

    def label(self, rows: list[list[str]]) -> None:
        """Store a labelled batch and score it."""
        self.batches += 1
        pipeline = self.pipeline()
        pipeline.ingest(Deliveries(batch(rows, self.batches)))
        pipeline.score()

    @property
    def registry(self) -> Registry:
        return self.pipeline().registry

    @property
    def production(self) -> int | None:
        entry = self.registry.last_promotion(self.name)
        return entry.to_version if entry else None

    def ends(self) -> list[tuple[str, str, int]]:
        return [(s.role, s.end.outcome if s.end else "", s.version) for s in self.registry.ledger.shadows(self.name)]

    def decide(self) -> list[ShadowEnd]:
        return decide(declared("good"), self.registry, self.engine)

    def alias(self, name: str) -> int | None:
        return self.registry.store.alias(self.name, name)


@pytest.fixture
def life(world: World) -> Life:
    return Life(world)


def test_the_first_version_is_promoted_at_once_and_the_next_one_is_in_shadow(life: Life) -> None:
    assert life.production == 1
    [state] = states(declared("good"), life.registry.ledger, life.engine)
    assert (state.shadow.version, state.shadow.champion, state.shadow.role) == (2, 1, "challenger")
    assert state.missing == "50 more labelled rows"
    assert life.alias("challenger") == 2
    assert life.ends() == [("challenger", "", 2)]
    # Repeating the task or the training on the same rows changes nothing.
    assert life.pipeline().challenge(2, "a test").in_shadow
    assert life.ends() == [("challenger", "", 2)]
    assert not life.pipeline().training_due()


def test_a_champion_that_the_api_can_no_longer_load_has_no_shadow(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API refuses a version of another declaration: a shadow of it would wait until its deadline."""

    def refuse(*_: object) -> None:
        raise DeclarationChanged("a unit has changed")

    assert Pipeline(declared("poor"), world.settings).challenge(world.register("poor"), "a test").promoted
    monkeypatch.setattr("dosel.challenge.check_declaration", refuse)
    outcome = Pipeline(declared("good"), world.settings).challenge(world.register("good"), "a test")
    assert (outcome.promoted, outcome.in_shadow) == (True, False)


def test_a_better_challenger_is_promoted_with_evidence_and_the_champion_becomes_the_control(
    life: Life, received: Rows
) -> None:
    life.label(received(400, seed=51))
    assert life.production == 2
    entry = life.registry.last_promotion(life.name)
    assert entry is not None
    assert (entry.evidence.kind, entry.actor, entry.from_version) == ("shadow", "shadow", 1)
    assert entry.reason.startswith("proven better by ")
    live = entry.evidence.live
    assert live is not None
    assert live["labels"] == live["shadow"]["total"] == 400
    assert live["only_shadow"] > live["only_champion"]
    assert entry.evidence.gate is not None
    assert entry.evidence.metrics_after["accuracy"] > entry.evidence.metrics_before["accuracy"]
    assert life.ends() == [("challenger", "promoted", 2), ("control", "", 1)]
    assert life.alias("challenger") is None
    assert life.alias("production") == 2


def test_a_challenger_proven_better_waits_for_a_person_and_keeps_its_evidence(
    life: Life, received: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = Approval(people=2, automatic=1)
    monkeypatch.setattr("dosel.registry.approvals.ALL", (dataclasses.replace(COVERTYPE, approval=rules),))
    life.world.settings = life.world.settings.model_copy(update={"promote_keys": f"ana:{'a' * 20}"})
    life.label(received(400, seed=51))
    assert life.production == 1
    registry = life.registry
    [request] = registry.approvals.open(life.name, 1)
    assert (request.subject.kind, request.subject.version, request.people) == ("shadow", 2, 1)
    # Nobody is asked twice.
    assert life.decide() == []
    assert len(registry.approvals.of_model(life.name)) == 1
    version = registry.version(life.name, 2)
    entry = promote(declared("good"), registry, life.engine, version, "API key ana", "looks right", "ana")
    assert (entry.evidence.kind, entry.evidence.request, entry.actor) == ("shadow", 1, "shadow, approved by ana")
    assert entry.reason.startswith("proven better by ")
    assert entry.evidence.live is not None
    assert entry.evidence.live["labels"] >= 50
    assert entry.evidence.gate is not None
    assert life.ends()[0] == ("challenger", "promoted", 2)
    assert life.production == 2


def test_a_worse_challenger_is_refused(life: Life, received: Rows) -> None:
    """The labels agree with the poor version only."""
    poor = life.registry.load(life.registry.version(life.name, 1))
    life.label(labelled_by(poor, received(300, seed=52)))
    assert life.production == 1
    assert life.ends() == [("challenger", "refused", 2)]
    event = next(event for event in EventStore(life.engine).newest(5) if "no longer" in event.what)
    assert event.what == "covertype: version 2 is no longer in shadow: refused; version 1 stays"
    assert event.evidence.startswith("proven worse")
    outcome = life.pipeline().challenge(2, "a test")
    assert (outcome.promoted, outcome.in_shadow) == (False, False)


CANARY = Shadow(min_labels=50, max_days=7, share=0.5, sticky_by="Elevation")


@pytest.mark.parametrize(("wrong", "outcome"), [("canary", "refused"), ("champion", "promoted"), ("nobody", "")])
def test_a_canary_is_judged_by_feedback_on_its_own_answers(life: Life, wrong: str, outcome: str) -> None:
    """Each of 600 values of the feature has one labelled answer, by the version that the value belongs to."""
    use_case = declared("good", CANARY)
    [shadow] = life.registry.ledger.open_shadows(life.name)
    draw = Draw.of(use_case, CANARY, shadow)
    assert draw is not None
    rows: list[tuple[object, int, int, int]] = []
    for value in range(2_000, 2_600):
        is_canary = draw.takes(draw.logged(value) or 0)
        answered = 2 if wrong == ("canary" if is_canary else "champion") else 1
        rows.append((value, 2 if is_canary else 1, 1, answered))
    label(life.engine, "Elevation", rows, life.name, datetime.now(UTC) + timedelta(seconds=1))
    assert [how.outcome for how in decide(use_case, life.registry, life.engine)] == ([outcome] if outcome else [])
    assert life.production == (2 if outcome == "promoted" else 1)


def labelled_by(model: Any, rows: list[list[str]]) -> list[list[str]]:
    """Rows whose classes are the predictions of a model."""
    use_case = FAMILIES["good"]
    frame = check(use_case, rows, "uci").accepted
    answers = model.predict(frames.canonical(use_case, frame))
    return [[*row[:-1], str(answer)] for row, answer in zip(rows, answers, strict=True)]


def test_without_a_decision_by_the_deadline_the_champion_stays(life: Life, received: Rows) -> None:
    life.label(received(20, seed=53))
    past = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=1)
    with transaction(life.engine) as connection:
        drop_triggers(connection)
        connection.execute(update(SHADOWS).values(ends_at=past))
    life.registry.ledger.sign_older(every=True)
    [how] = life.decide()
    assert how.outcome == "undecided"
    assert "missing: 30 more labelled rows" in how.reason
    assert how.evidence["labels"] == 20
    assert life.production == 1
    assert life.decide() == []


def promoted(life: Life, received: Rows) -> Life:
    life.label(received(400, seed=54))
    assert life.production == 2
    return life


@pytest.mark.soak
def test_a_better_control_comes_back_once_and_then_only_a_person_decides(life: Life, received: Rows) -> None:
    poor = promoted(life, received).registry.load(life.registry.version(life.name, 1))
    life.label(labelled_by(poor, received(300, seed=55)))
    assert life.production == 1
    entry = life.registry.last_promotion(life.name)
    assert entry is not None
    assert (entry.evidence.kind, entry.actor) == ("rollback", "shadow")
    assert entry.evidence.live is not None
    assert life.ends()[1:] == [("control", "rolled back", 1)]
    # The refused version does not come back, neither as a control nor through the gate.
    life.label(received(300, seed=56))
    assert life.production == 1
    assert len(life.ends()) == 2
    assert "only a person" in life.pipeline().challenge(2, "a test").reason
    life.registry.promote(life.registry.version(life.name, 2), "ana", "I know why")
    life.label(labelled_by(poor, received(300, seed=57)))
    assert life.production == 2
    assert len(life.ends()) == 2


def test_a_champion_better_than_its_control_is_confirmed(life: Life, received: Rows) -> None:
    promoted(life, received).label(received(400, seed=58))
    assert life.production == 2
    assert life.ends()[1:] == [("control", "confirmed", 1)]


def test_a_control_that_loses_a_class_does_not_come_back(life: Life, received: Rows) -> None:
    """The control is better on the other classes, which alone would bring it back."""
    promoted(life, received)
    [state] = states(declared("good"), life.registry.ledger, life.engine)
    proof = dataclasses.replace(state.comparison.proof, finding="a class is worse", after=60)
    decision = _decision(dataclasses.replace(state, comparison=dataclasses.replace(state.comparison, proof=proof)))
    assert decision is not None
    assert decision.outcome == "confirmed"
    assert decision.reason.startswith("proven worse at ")


def test_a_rollback_by_hand_ends_the_shadow(life: Life, received: Rows) -> None:
    promoted(life, received).decide()
    life.registry.roll_back(life.name, "ana", "I do not like it")
    life.decide()
    assert life.ends()[1:] == [("control", "superseded", 1)]
    assert life.registry.ledger.open_shadows(life.name) == []


@pytest.mark.soak
def test_a_second_challenger_waits_for_the_end_of_the_first(world: World) -> None:
    life = Life(world, first="poor", then="fair")
    outcome = life.pipeline("good").challenge(world.register("good"), "a test")
    assert (outcome.promoted, outcome.in_shadow) == (False, False)
    assert "waits while version 2 is in shadow" in outcome.reason
    [event] = EventStore(life.engine).newest(1)
    assert event.what == "covertype: version 3 passed the gate, and waits while version 2 is in shadow"
    assert event.command == 'dosel shadow stop covertype --reason "…"'
    end_by_hand(declared("good"), life.registry, life.engine, "challenger", "refuse", "ana", "make room")
    assert life.pipeline("good").training_due()
    assert life.pipeline("good").challenge(3, "a test").in_shadow


def test_a_second_challenger_takes_the_place_of_the_first_if_the_champion_is_harmed(world: World) -> None:
    """A champion that is known to be worse does not wait for days."""
    life = Life(world, first="poor", then="fair")
    entry = life.registry.last_promotion(life.name)
    assert entry is not None
    EventStore(life.engine).add(
        Event(f"harmed {life.name} {entry.sequence}", "covertype", "harmed", "it is worse", "as seen", "dosel health")
    )
    assert life.pipeline("good").challenge(world.register("good"), "a test").in_shadow
    assert life.ends()[:1] == [("challenger", "superseded", 2)]
    [now] = life.registry.ledger.open_shadows(life.name)
    assert now.version == 3


@pytest.mark.parametrize(
    ("action", "outcome", "production"), [("stop", "stopped", 1), ("refuse", "refused", 1), ("promote", "promoted", 2)]
)
def test_a_person_can_decide_at_any_time(life: Life, action: Action, outcome: str, production: int) -> None:
    how = end_by_hand(declared("good"), life.registry, life.engine, "challenger", action, "ana", "because")
    assert how.outcome == outcome
    assert life.production == production
    assert life.ends()[0] == ("challenger", outcome, 2)
    if production == 2:
        entry = life.registry.last_promotion(life.name)
        assert entry is not None
        assert (entry.actor, entry.evidence.kind, entry.reason) == ("ana", "manual", "because")
    with pytest.raises(PromotionRefused, match="no version is in shadow as challenger"):
        end_by_hand(declared("good"), life.registry, life.engine, "challenger", action, "ana", "again")


def test_the_gate_does_not_promote_a_version_that_a_person_refused(life: Life) -> None:
    end_by_hand(declared("good"), life.registry, life.engine, "challenger", "refuse", "ana", "because")
    outcome = life.pipeline().challenge(2, "a test")
    assert (outcome.promoted, outcome.in_shadow) == (False, False)
    assert outcome.reason == "its shadow has ended: refused, because"


def test_a_process_without_shadow_settings_decides_running_shadows_and_starts_none(life: Life, received: Rows) -> None:
    """`DOSEL_SHADOW` can be set for the platform and missing in a person's terminal."""
    undeclared = declared("good", rules=None)
    assert decide(undeclared, life.registry, life.engine) == []
    [state] = states(undeclared, life.registry.ledger, life.engine)
    assert state.missing == "100 more labelled rows"
    life.batches += 1
    pipeline = Pipeline(undeclared, life.world.settings)
    pipeline.ingest(Deliveries(batch(received(400, seed=62), life.batches)))
    pipeline.score()
    assert life.production == 2
    assert life.ends() == [("challenger", "promoted", 2)]


@pytest.mark.parametrize("step", ["insert_pairs", "insert_truths"])
def test_a_scoring_that_was_killed_counts_each_row_once(
    step: str, life: Life, received: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(f"dosel.monitor.joining.{step}", killed)
        with pytest.raises(KeyboardInterrupt):
            life.label(received(30, seed=59))
    life.pipeline().score()
    life.pipeline().score()
    [state] = states(declared("good"), life.registry.ledger, life.engine)
    assert state.comparison.labels == 30


@pytest.mark.soak
@pytest.mark.parametrize("step", ["dosel.registry.registry.sync_aliases", "dosel.registry.ledger.announce_promotion"])
def test_a_killed_promotion_is_finished_by_the_next_decision(
    step: str, life: Life, received: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(step, killed)
        with pytest.raises(KeyboardInterrupt):
            life.label(received(400, seed=60))
    life.pipeline().score()
    life.registry.reconcile(life.name)
    assert (life.production, life.alias("production")) == (2, 2)
    entries = life.registry.ledger.history(life.name)
    assert [(entry.to_version, entry.evidence.kind) for entry in entries] == [(1, "gate"), (2, "shadow")]
    assert entries[-1].evidence.live is not None
    assert life.ends()[0] == ("challenger", "promoted", 2)


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.soak
def test_a_version_rolled_back_for_harm_needs_a_person_to_return(life: Life, received: Rows) -> None:
    promoted(life, received)
    use_case = declared("good", monitor=Monitor(on_harm=("roll back",)))
    pipeline = Pipeline(use_case, life.world.settings)
    pipeline.ingest(Deliveries(batch(with_wrong_labels(received(400, seed=61)), 9)))
    pipeline.score()
    assert life.production == 1
    entry = life.registry.last_promotion(life.name)
    assert entry is not None
    assert (entry.actor, entry.evidence.kind) == ("monitor", "rollback")
    assert "only a person" in pipeline.challenge(2, "a test").reason
