"""The pipeline that the tasks of the DAGs call: ingest, training and gate, also killed and repeated."""

import dataclasses
from collections.abc import Callable

import pytest
from sklearn.metrics import accuracy_score

from dosel import pipeline as room
from dosel.db.engine import connect
from dosel.errors import ModelNotFound, QualityError, SourceError, SourceUnavailable
from dosel.model import tags
from dosel.pipeline import Pipeline
from dosel.registry.ledger import PromotionLedger
from dosel.rows import frames, hashing, splits
from dosel.settings import Settings
from dosel.sources.data_api import DataApi
from dosel.usecases import Gate, Split
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.records import BatchRecord
from tests.integration.worlds import FAMILIES, LENIENT, Deliveries, World, batch

Received = Callable[..., list[list[str]]]


@pytest.fixture
def empty(warehouse_url: str, tracking_uri: str) -> Pipeline:
    """A pipeline of an installation without batches."""
    return Pipeline(FAMILIES["poor"], Settings(tracking_uri=tracking_uri, warehouse_url=warehouse_url, seed=1, jobs=1))


def with_bad_classes(count: int, bad: int, received: Received) -> list[list[str]]:
    return [[*row[:-1], "99"] if i < bad else row for i, row in enumerate(received(count))]


class TestIngest:
    def test_pulls_until_the_source_is_done(self, empty: Pipeline, received: Received) -> None:
        reported: list[BatchRecord] = []
        deliveries = Deliveries(*(batch(received(10, seed=i), i) for i in (1, 2, 3)))
        stored = empty.ingest(deliveries, reported.append)
        assert [record.number for record in stored] == [1, 2, 3]
        assert stored == reported == empty.batches.records()
        assert empty.ingest(deliveries) == []

    def test_stops_at_a_batch_that_is_already_stored(self, empty: Pipeline, received: Received) -> None:
        """The data API sends the same batch until its window is over."""
        deliveries = Deliveries(*(batch(received(10, seed=i), n) for i, n in enumerate((1, 2, 2, 3))))
        assert [record.number for record in empty.ingest(deliveries)] == [1, 2]
        assert len(deliveries.left) == 1
        assert [record.number for record in empty.ingest(deliveries)] == [3]

    def test_refuses_a_batch_with_too_many_bad_rows(self, empty: Pipeline, received: Received) -> None:
        good, bad = batch(received(10, seed=9), 1), batch(with_bad_classes(100, 6, received), 2)
        with pytest.raises(QualityError, match=r"batch 2 of group 6: 6 of 100 .*more than 5%.*row 1: Cover_Type") as e:
            empty.ingest(Deliveries(good, bad, batch(received(5), 3)))
        assert str(e.value).count("row ") == 3
        assert [record.number for record in empty.batches.records()] == [1]
        assert len(empty.batches.clean()) == 10

    def test_stores_a_batch_with_the_maximum_share_of_bad_rows(self, empty: Pipeline, received: Received) -> None:
        (record,) = empty.ingest(Deliveries(batch(with_bad_classes(100, 5, received))))
        assert (record.rows_clean, record.rows_refused) == (95, 5)

    def test_batches_before_a_source_failure_are_kept(self, empty: Pipeline, received: Received) -> None:
        failing = Deliveries(batch(received(10), 1), SourceUnavailable("the data API answered 500"))
        with pytest.raises(SourceUnavailable, match="500"):
            empty.ingest(failing)
        assert [record.number for record in empty.batches.records()] == [1]

    def test_stops_after_the_maximum_number_of_batches(
        self, empty: Pipeline, received: Received, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(room, "MAX_BATCHES", 3)
        endless = Deliveries(*(batch(received(2, seed=i), i) for i in range(1, 10)))
        with pytest.raises(SourceError, match="gave 3 batches and has not ended"):
            empty.ingest(endless)
        assert len(empty.batches.records()) == 3

    def test_classes_are_converted_to_the_declared_coding(self, empty: Pipeline, received: Received) -> None:
        sent = received(20)
        course = [[*row[:-1], str(int(row[-1]) - 1)] for row in sent]
        empty.ingest(Deliveries(batch(course, coding="course")))
        assert empty.batches.clean()["Cover_Type"].tolist() == [int(row[-1]) for row in sent]

    def test_pulls_from_the_configured_address(self, empty: Pipeline) -> None:
        source = empty.source()
        assert isinstance(source, DataApi)
        assert vars(source).items() >= {"_url": "http://127.0.0.1:8090/data", "_group": 6, "_coding": "uci"}.items()


class TestTrainingDue:
    def test_is_due_until_the_gate_has_judged_the_rows(self, empty: Pipeline, received: Received) -> None:
        assert not empty.training_due()
        empty.ingest(Deliveries(batch(received(150, seed=1), 1)))
        assert empty.training_due()
        run_id = empty.train()
        assert empty.training_due()
        number = empty.register(run_id)
        assert empty.training_due()
        empty.challenge(number, "me")
        assert not empty.training_due()
        empty.ingest(Deliveries(batch(received(150, seed=1), 2)))
        assert not empty.training_due(), "duplicates are no new rows"
        empty.ingest(Deliveries(batch(received(1, seed=2), 3)))
        assert empty.training_due()

    def test_is_not_due_after_a_refusal(self, world: World) -> None:
        world.enter("good")
        assert world.pipeline("poor").training_due()
        world.enter("poor")
        assert not world.pipeline("poor").training_due()


class TestChallenge:
    def test_the_first_version_is_promoted(self, world: World) -> None:
        outcome = world.pipeline().challenge(world.register("fair"), "me")
        assert outcome.promoted
        assert outcome.reason.endswith("; no champion to compare with")
        assert (world.aliases(), world.stages()) == ({"production": 1}, {1: "Production"})
        assert world.pipeline().registry.production_number(world.name) == 1

    def test_a_better_version_replaces_the_champion(self, world: World) -> None:
        world.enter("poor")
        outcome = world.pipeline().challenge(world.register("good"), "the DAG")
        assert outcome.promoted
        assert world.aliases() == {"production": 2, "previous": 1}
        assert world.stages() == {1: "Archived", 2: "Production"}
        last = PromotionLedger(connect(world.settings.warehouse_url)).last(world.name)
        assert last is not None
        assert (last.from_version, last.to_version, last.actor, last.reason) == (1, 2, "the DAG", outcome.reason)
        assert outcome.reason.startswith("better: accuracy ")

    @pytest.mark.parametrize("family", ["poor", "good"], ids=["worse", "equal"])
    def test_a_version_that_is_not_better_is_refused_with_the_reason(self, family: str, world: World) -> None:
        world.enter("good")
        if family == "good":
            # The same model again, from another run.
            world.client.create_model_version(world.name, self.source(world, 1), world.runs["fair"])
            number = 2
            registry = world.pipeline().registry
            registry.record_manifest(registry.version(world.name, number))
        else:
            number = world.register(family)
        outcome = world.pipeline().challenge(number, "me")
        assert not outcome.promoted
        assert outcome.reason.startswith("not better: accuracy ")
        assert world.aliases() == {"production": 1}
        assert world.stages() == {1: "Production", 2: "None"}
        version = world.pipeline().registry.version(world.name, 2)
        assert version.tags[tags.GATE] == "refused"
        assert version.tags[tags.GATE_REASON] == outcome.reason
        description = world.client.get_model_version(world.name, "2").description
        assert description.startswith(f"Candidate, not promoted: {outcome.reason}.\n")
        assert "| gain | **fails** |" in description

    @staticmethod
    def source(world: World, number: int) -> str:
        return str(world.client.get_model_version(world.name, str(number)).source)

    def test_both_versions_are_scored_on_the_held_out_rows(self, world: World) -> None:
        world.enter("poor")
        world.enter("good")
        registry = world.pipeline().registry
        clean = world.pipeline().batches.clean()
        held_out = clean[hashing.is_held_out(COVERTYPE, clean)]
        features = frames.canonical(COVERTYPE, held_out)
        champion, challenger = (
            accuracy_score(
                held_out["Cover_Type"], registry.load(registry.version(world.name, number)).predict(features)
            )
            for number in (1, 2)
        )
        metrics = registry.version(world.name, 2).metrics
        assert metrics["gate_challenger_accuracy"] == challenger == metrics["holdout_accuracy"]
        assert metrics["gate_production_accuracy"] == champion
        assert champion < challenger

    def test_the_declared_metric_and_gain_decide(self, world: World) -> None:
        world.enter("fair")
        wide = dataclasses.replace(FAMILIES["good"], gate=Gate("balanced_accuracy", 0.99, max_class_drop=1))
        outcome = Pipeline(wide, world.settings).challenge(world.register("good"), "me")
        assert not outcome.promoted
        assert outcome.reason.startswith("not better: balanced_accuracy ")

    def test_repeating_the_challenge_changes_nothing(self, world: World) -> None:
        number = world.register("fair")
        first = world.pipeline().challenge(number, "me")
        again = world.pipeline().challenge(number, "me")
        assert again == first
        assert len(PromotionLedger(connect(world.settings.warehouse_url)).history(world.name)) == 1
        assert world.pipeline().registry.version(world.name, number).tags[tags.GATE] == "passed"

    def test_a_killed_promotion_is_finished(self, world: World) -> None:
        """The task is killed after the ledger's entry and before any alias moved, and runs again."""
        world.enter("poor")
        number = world.register("good")
        PromotionLedger(connect(world.settings.warehouse_url)).append(world.name, number, "me", "better: by far")
        assert world.aliases() == {"production": 1}
        outcome = world.pipeline().challenge(number, "me")
        assert (outcome.promoted, outcome.reason) == (True, "better: by far")
        assert world.aliases() == {"production": 2, "previous": 1}
        assert world.stages() == {1: "Archived", 2: "Production"}
        assert not world.pipeline("good").training_due()

    def test_the_next_challenger_is_compared_with_the_ledgers_champion(self, world: World) -> None:
        """The aliases still name the version before, which the challenger would have beaten."""
        world.enter("poor")
        best, next_one = world.register("good"), world.register("fair")
        PromotionLedger(connect(world.settings.warehouse_url)).append(world.name, best, "me", "better: by far")
        outcome = world.pipeline().challenge(next_one, "me")
        assert not outcome.promoted
        assert world.aliases() == {"production": best, "previous": 1}

    @pytest.mark.soak
    def test_after_its_looks_the_holdout_is_rotated_and_the_champion_stays_comparable(self, world: World) -> None:
        world.enter("poor")
        once = dataclasses.replace(FAMILIES["good"], gate=dataclasses.replace(LENIENT, looks=1))
        assert Pipeline(once, world.settings).challenge(world.register("good"), "me").promoted
        pipeline = Pipeline(once, world.settings)
        assert pipeline.training_due()
        number = pipeline.register(pipeline.train())
        registry = pipeline.registry
        new, old = (registry.version(world.name, n).tags[tags.SPLIT_VERSION] for n in (number, 2))
        assert (splits.split_of(once, new), splits.split_of(once, old)) == (
            Split("covertype-1.1", 0.3),
            Split("covertype-1", 0.3),
        )
        pipeline.challenge(number, "me")
        verdict = registry.verdict(registry.version(world.name, number))
        assert verdict is not None
        assert verdict.report is not None
        rules = {rule["name"]: rule for rule in verdict.report["rules"]}
        clean = pipeline.batches.clean()
        both = hashing.is_held_out(COVERTYPE, clean) & hashing.is_held_out(
            dataclasses.replace(COVERTYPE, split=Split("covertype-1.1", 0.3)), clean
        )
        assert verdict.report["rows"] == both.sum() > 0
        assert rules["split"]["holds"]
        assert (verdict.report["look"]["number"], verdict.report["look"]["seen"]) == (1, 1.0)

    def test_an_unknown_version_cannot_challenge(self, world: World) -> None:
        world.register("fair")
        with pytest.raises(ModelNotFound, match="has no version 7"):
            world.pipeline().challenge(7, "me")


def test_training_uses_every_clean_row_and_names_its_batches(empty: Pipeline, received: Received) -> None:
    empty.ingest(Deliveries(batch(received(100, seed=1), 1), batch(received(60, seed=2), 2)))
    number = empty.register(empty.train())
    found = empty.registry.version(COVERTYPE.model_name, number).tags
    ids = [record.id for record in empty.batches.records()]
    assert found[tags.BATCH_IDS] == str(ids)
    assert int(found[tags.ROWS_TRAIN]) + int(found[tags.ROWS_TEST]) == 160
    assert found[tags.DATA_DIGEST] == hashing.digest(empty.batches.clean()["row_key"].to_numpy())
