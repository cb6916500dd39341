"""Events: written in the transaction of their change, once for each incident."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, delete, func, select

from dosel.db.engine import connect, transaction
from dosel.db.tables import EVENTS, PROMOTIONS, REFUSED_BATCHES, VERDICTS
from dosel.db.types import MOST_TEXT
from dosel.errors import AccountingError, QualityError
from dosel.pipeline import Pipeline
from dosel.registry import announcements, ledger, verdicts
from dosel.registry.ledger import Evidence, PromotionLedger
from dosel.registry.rollbacks import MONITOR
from dosel.registry.verdicts import Verdict
from dosel.usecases import HarmAction, Monitor
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.events import Event, EventStore, StoredEvent
from tests.integration.test_watch import with_wrong_labels
from tests.integration.webhook import webhook
from tests.integration.worlds import FAMILIES, Deliveries, World, batch

Rows = Callable[..., list[list[str]]]

EVENT = Event("an incident", "covertype", "stale", "it is so", "as was seen", "make status")


def all_of(engine: Engine, kind: str | None = None) -> list[StoredEvent]:
    return [event for event in EventStore(engine).newest(100) if kind in (None, event.kind)]


def count(engine: Engine, table: Any) -> int:
    with transaction(engine) as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def data(world: World) -> Engine:
    return connect(world.settings.warehouse_url)


@pytest.mark.storage
def test_an_incident_is_one_event(engine: Engine) -> None:
    store = EventStore(engine)
    assert store.add(EVENT)
    assert not store.add(dataclasses.replace(EVENT, what="it is otherwise"))
    [event] = store.newest(10)
    assert (event.incident, event.what, event.at) == ("an incident", "it is so", event.since)


@pytest.mark.storage
def test_long_texts_of_an_event_are_cut_to_the_columns(engine: Engine) -> None:
    store = EventStore(engine)
    assert store.add(dataclasses.replace(EVENT, evidence="🌲" * 100_000, place="mlflow/" + "x" * 500))
    [event] = store.newest(10)
    assert event.evidence == "🌲" * MOST_TEXT
    assert len(event.place) == 255


@pytest.mark.storage
def test_events_are_listed_newest_first_in_pages(engine: Engine) -> None:
    store = EventStore(engine)
    for number in range(5):
        store.add(dataclasses.replace(EVENT, incident=str(number), use_case="penguins" if number == 2 else "covertype"))
    first = store.newest(2)
    assert [event.incident for event in first] == ["4", "3"]
    assert [event.incident for event in store.newest(2, before=first[-1].id)] == ["2", "1"]
    assert [event.incident for event in store.newest(9, "penguins")] == ["2"]


@pytest.mark.storage
def test_a_promotion_and_its_event_are_one_transaction(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    promotions = PromotionLedger(engine)
    promotions.append(COVERTYPE.model_name, 1, "me", "the first")
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "announce_promotion", killed)
        with pytest.raises(KeyboardInterrupt):
            promotions.append(COVERTYPE.model_name, 2, "me", "better")
    assert (count(engine, PROMOTIONS), count(engine, EVENTS)) == (1, 1)
    promotions.append(COVERTYPE.model_name, 2, "me", "better")
    promotions.append(COVERTYPE.model_name, 2, "me", "again")
    promotions.append(COVERTYPE.model_name, 1, "me", "it was worse", Evidence("rollback"))
    back, newest, first = all_of(engine)
    assert newest.what == "covertype: version 2 is in Production, after version 1 (promoted by hand)"
    assert newest.evidence == "better (by me)"
    assert newest.command == "dosel rollback covertype"
    assert first.command == back.command == "dosel history covertype"


@pytest.mark.storage
def test_a_refusal_and_its_event_are_one_transaction(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    promotions = PromotionLedger(engine)
    rules = [{"name": "gain", "holds": False, "words": "0.1 lower"}, {"name": "split", "holds": True, "words": "same"}]
    refused = Verdict(False, "it is worse", {"rules": rules, "champion": 2})
    with monkeypatch.context() as patch:
        patch.setattr(verdicts, "announce_refusal", killed)
        with pytest.raises(KeyboardInterrupt):
            promotions.add_verdict(COVERTYPE.model_name, 3, "run", refused)
    assert (count(engine, VERDICTS), count(engine, EVENTS)) == (0, 0)
    for _ in range(2):
        promotions.add_verdict(COVERTYPE.model_name, 3, "run", refused)
    promotions.add_verdict(COVERTYPE.model_name, 4, "other", Verdict(True, "it is better", {"rules": []}))
    [event] = all_of(engine)
    assert (event.kind, event.evidence) == ("refused", "gain: 0.1 lower")
    assert event.command == "dosel compare covertype 2 3"
    assert event.place == f"mlflow/#/models/{COVERTYPE.model_name}/versions/3"


def test_a_model_without_a_declaration_has_events_under_its_own_name(engine: Engine) -> None:
    PromotionLedger(engine).append("gone", 1, "me", "why")
    assert all_of(engine)[0].use_case == "gone"


class TestRefusedBatch:
    BAD = [["many"] * 13] * 10

    @pytest.mark.storage
    def test_a_batch_refused_as_a_whole_is_one_line_and_one_event(self, world: World, data: Engine) -> None:
        pipeline = world.pipeline()
        for _ in range(2):
            with pytest.raises(QualityError):
                pipeline.ingest(Deliveries(batch(self.BAD, 2)))
        [line] = pipeline.batches.refusals()
        assert (line.number, line.rows_received, line.rows_refused, line.refused_share) == (2, 10, 10, 1.0)
        assert line.reason.startswith("10 of 10 rows are invalid, more than 5%")
        assert line.first_reasons[0].startswith("row 1: Elevation: expected a whole number")
        [event] = all_of(data, "batch refused")
        assert event.command == "dosel batches covertype"
        assert "row 1: Elevation" in event.evidence

    @pytest.mark.storage
    def test_batch_number_can_be_delivered_again_with_valid_rows(self, world: World, received: Rows) -> None:
        pipeline = world.pipeline()
        with pytest.raises(QualityError):
            pipeline.ingest(Deliveries(batch(self.BAD, 2)))
        [record] = pipeline.ingest(Deliveries(batch(received(40, seed=3), 2)))
        assert record.rows_clean == 40
        assert len(pipeline.batches.refusals()) == 1

    def test_a_closed_use_case_stores_no_values_of_the_batch(self, world: World, data: Engine) -> None:
        closed = dataclasses.replace(FAMILIES["fair"], expose_training_rows=False)
        rows = [["secret; more", *["1"] * 12]] * 10
        with pytest.raises(QualityError):
            Pipeline(closed, world.settings).ingest(Deliveries(batch(rows, 2)))
        [event] = all_of(data, "batch refused")
        assert "Elevation: expected a whole number" in event.evidence
        assert "got a value that is not shown; Wilderness_Area: expected" in event.evidence
        assert "secret" not in event.evidence
        assert "more" not in event.evidence.replace("more than", "")

    def test_a_kill_leaves_neither_line_nor_event(
        self, world: World, data: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("dosel.warehouse.refusals.events.add", killed)
            with pytest.raises(KeyboardInterrupt):
                world.pipeline().ingest(Deliveries(batch(self.BAD, 2)))
        assert count(data, REFUSED_BATCHES) == 0
        assert all_of(data, "batch refused") == []


def test_missing_rows_are_reported_once(world: World, data: Engine) -> None:
    pipeline = world.pipeline()
    with transaction(data) as connection:
        connection.execute(delete(pipeline.batches._tables.clean).where(pipeline.batches._tables.clean.c.row_no == 0))
    for _ in range(2):
        with pytest.raises(AccountingError):
            pipeline.ingest(Deliveries())
    [event] = all_of(data, "audit mismatch")
    assert "batch 1 of group 6" in event.evidence


def acting(world: World, *actions: HarmAction) -> Pipeline:
    """A pipeline with an action on harm, and with a good version in Production after a poorer one."""
    world.entered("fair", "good")
    use_case = dataclasses.replace(FAMILIES["good"], monitor=Monitor(on_harm=actions))
    return Pipeline(use_case, world.settings)


def deliver_wrong_labels(pipeline: Pipeline, received: Rows, number: int = 2, count: int = 150) -> None:
    pipeline.ingest(Deliveries(batch(with_wrong_labels(received(count, seed=40 + number)), number)))
    pipeline.score()


class TestHarm:
    def test_harm_is_one_event_and_one_note_with_the_evidence(self, world: World, data: Engine, received: Rows) -> None:
        pipeline = acting(world, "notify")
        deliver_wrong_labels(pipeline, received)
        deliver_wrong_labels(pipeline, received, 3)
        [event] = all_of(data, "harmed")
        health = pipeline.health()
        assert health is not None
        assert event.since == health.harmed_since
        assert event.what == f"covertype: version {health.version} answers worse than the gate promised"
        assert "accuracy 0." in event.evidence
        # The event is of the first of the two batches, which are equally large.
        assert health.from_batches == health.labels
        assert f"{health.labels // 2} of the labelled rows came in batches" in event.evidence
        assert "held-out rows" in event.evidence
        assert event.command == "dosel rollback covertype"
        [note] = pipeline.registry.open_notes(world.name)
        assert note == f"harm: {event.evidence}"
        assert pipeline.registry.production_number(world.name) == health.version

    def test_a_kill_leaves_neither_the_note_nor_the_event(
        self, world: World, data: Engine, received: Rows, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pipeline = acting(world, "notify")
        with monkeypatch.context() as patch:
            patch.setattr("dosel.monitor.harm.notes.add", killed)
            with pytest.raises(KeyboardInterrupt):
                deliver_wrong_labels(pipeline, received)
        assert all_of(data, "harmed") == []
        pipeline.score()
        assert len(all_of(data, "harmed")) == len(pipeline.registry.open_notes(world.name)) == 1

    def test_harm_rolls_back_once_with_the_evidence(self, world: World, received: Rows) -> None:
        pipeline = acting(world, "roll back")
        deliver_wrong_labels(pipeline, received)
        entry = pipeline.registry.last_promotion(world.name)
        assert entry is not None
        assert (entry.to_version, entry.actor, entry.evidence.kind) == (1, MONITOR, "rollback")
        assert entry.reason.startswith("harm: accuracy 0.")

    def test_a_version_restored_by_the_monitor_stays_in_production(
        self, world: World, received: Rows, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pipeline = acting(world, "roll back")
        deliver_wrong_labels(pipeline, received)
        entry = pipeline.registry.last_promotion(world.name)
        health = pipeline.health()
        assert health is not None
        harmed = dataclasses.replace(health, state="harmed")
        monkeypatch.setattr("dosel.monitor.harm.health", lambda *_: harmed)
        for _ in range(2):
            pipeline.score()
        assert pipeline.registry.last_promotion(world.name) == entry
        event, stays = pipeline.registry.open_notes(world.name)
        assert event.startswith("harm: ")
        assert stays.endswith("stays in Production: there was an automatic rollback already")

    def test_a_killed_rollback_is_finished_by_the_next_scoring(
        self, world: World, received: Rows, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pipeline = acting(world, "roll back")
        with monkeypatch.context() as patch:
            patch.setattr(type(pipeline.registry), "roll_back", killed)
            with pytest.raises(KeyboardInterrupt):
                deliver_wrong_labels(pipeline, received)
        pipeline.score()
        assert pipeline.registry.production_number(world.name) == 1

    def test_harm_without_an_earlier_version_adds_a_note(self, world: World, received: Rows) -> None:
        world.entered("good")
        use_case = dataclasses.replace(FAMILIES["good"], monitor=Monitor(on_harm=("roll back",)))
        pipeline = Pipeline(use_case, world.settings)
        deliver_wrong_labels(pipeline, received)
        reason = "stays in Production: there is no earlier version"
        assert reason in pipeline.registry.open_notes(world.name)[-1]
        [event] = EventStore(connect(world.settings.warehouse_url)).newest(1)
        assert event.what.endswith(reason)
        assert event.command == "dosel train covertype"
        assert event.place == "page/health?use_case=covertype"

    def test_harm_trains_once_with_the_reason_in_the_run(
        self, world: World, received: Rows, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pipeline = acting(world, "retrain")
        pipeline.ingest(Deliveries(batch(with_wrong_labels(received(150, seed=42)), 2)))
        pipeline.challenge(pipeline.register(pipeline.train()), "a test")
        assert not pipeline.training_due()
        assert pipeline.training_reason().startswith("no judged version")
        EventStore(connect(world.settings.warehouse_url)).add(
            Event("harmed", COVERTYPE.name, "harmed", "covertype: version 2 is harmed", "accuracy 0.1", "dosel health")
        )
        assert pipeline.training_due()
        run_id = pipeline.train()
        assert pipeline.train() == run_id
        note = world.client.get_run(run_id).data.tags["mlflow.note.content"]
        assert note == "Reason of the training: covertype: version 2 is harmed: accuracy 0.1."
        pipeline.challenge(pipeline.register(run_id), "a test")
        assert not pipeline.training_due()
        # The next one is not about this harm any more.
        assert pipeline.training_reason().startswith("no judged version")


def test_a_pipeline_step_delivers_its_events(world: World) -> None:
    with webhook() as received:
        settings = world.settings.model_copy(update={"notify_webhook": received.url})
        pipeline = Pipeline(FAMILIES["good"], settings)
        pipeline.challenge(pipeline.register(world.trainings["good"]), "a test")
        [document] = [d for d in received.documents if d["kind"] == "promoted"]
    page = f"models/{world.name}/versions/1"
    assert document["link"] == f"http://localhost:5000/#/{page}?workflowType=machine_learning"
    assert document["what"].startswith("covertype: version 1 is in Production, the first one (the gate promoted it)")


def test_a_refused_registration_is_named_in_its_event(engine: Engine) -> None:
    assert announcements._CAUSES.keys() == set(ledger.Kind.__args__)  # type: ignore[attr-defined]
    PromotionLedger(engine).add_verdict(COVERTYPE.model_name, 3, "run", Verdict(False, "its files differ"))
    [event] = all_of(engine)
    assert event.what == "covertype: the registration refused version 3; Production stays as it is"
    assert (event.evidence, event.command) == ("its files differ", "dosel train covertype")
