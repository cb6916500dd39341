"""Moving Production: tampered files, aliases moved in MLflow, lost versions, rollbacks, kills and conflicts."""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from mlflow.artifacts import download_artifacts
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sqlalchemy import Engine, select, text, update

from dosel.challenge import Challenge
from dosel.db.engine import connect
from dosel.db.migrations import VERSION_TABLE
from dosel.db.tables import MANIFESTS
from dosel.errors import PromotionConflict, PromotionRefused, UntrustedModel
from dosel.model.bundle import hash_files
from dosel.model.facts import Facts
from dosel.registry.ledger import Evidence, Promotion, PromotionLedger
from dosel.registry.manifests import Manifest
from dosel.registry.registry import Registry
from dosel.registry.report import Report
from dosel.registry.shadows import ShadowEnd, ShadowRecord
from dosel.registry.store import ModelVersion
from dosel.registry.verdicts import Verdict
from dosel.usecases.covertype import COVERTYPE
from tests.integration.test_promotion_ledger import assert_is_chain
from tests.integration.worlds import World, read_report
from tests.ledgers import drop_triggers

FAMILIES = ("poor", "fair", "good")


@pytest.fixture
def three(world: World) -> World:
    """A world with versions 1 to 3, of which 1 and then 2 entered Production."""

    def make() -> None:
        registry = registry_of(world)
        for number, family in enumerate(FAMILIES, 1):
            assert world.register(family) == number
        for number in (1, 2):
            registry.promote(registry.version(world.name, number), "me", f"number {number}")

    world.prepared("three registered", make)
    return world


def registry_of(world: World) -> Registry:
    return world.pipeline().registry


def history(world: World) -> list[Promotion]:
    found = registry_of(world).ledger.history(world.name)
    assert_is_chain(found)
    return found


def moves(world: World) -> list[int]:
    return [entry.to_version for entry in history(world)]


def assert_projected(world: World, production: int) -> None:
    assert world.aliases()["production"] == production
    assert [number for number, stage in world.stages().items() if stage == "Production"] == [production]


Tamper = Callable[..., None]


@pytest.fixture
def tamper(world: World) -> Iterator[Tamper]:
    """Change an artifact of a version, as somebody with the bucket's keys could; it is restored after the test."""
    written: list[tuple[ArtifactRepository, str, bytes | None]] = []

    def write(repository: ArtifactRepository, file: str, content: bytes) -> None:
        path = Path(file)
        with TemporaryDirectory() as folder:
            Path(folder, path.name).write_bytes(content)
            repository.log_artifact(str(Path(folder, path.name)), str(path.parent) if path.parent.name else None)

    def act(number: int, file: str = "model.skops", content: bytes = b"another model") -> None:
        location = world.client.get_model_version_download_uri(world.name, str(number))
        repository = get_artifact_repository(location, tracking_uri=world.settings.tracking_uri)
        there = file in {listed.path for listed in repository.list_artifacts(str(Path(file).parent).strip("."))}
        written.append((repository, file, Path(repository.download_artifacts(file)).read_bytes() if there else None))
        write(repository, file, content)

    yield act
    for repository, file, before in written:
        if before is None:
            repository.delete_artifacts(file)
        else:
            write(repository, file, before)


def record_verdict(world: World, number: int, passed: bool = True) -> None:
    """Record a verdict of the gate on a version, without a promotion."""
    registry = registry_of(world)
    registry.add_verdict(registry.version(world.name, number), Verdict(passed, "by a test", {}))


def create_in_mlflow(world: World) -> int:
    """Create a version directly in MLflow, without a manifest in the ledger."""
    source = world.client.get_model_version(world.name, "1").source
    return int(world.client.create_model_version(world.name, str(source), world.runs["poor"]).version)


class TestTrust:
    def test_the_ledger_has_the_digest_of_each_file(self, three: World) -> None:
        registry = registry_of(three)
        version = registry.version(three.name, 1)
        manifest = registry.manifest(version)
        assert manifest is not None
        uri = three.client.get_model_version_download_uri(three.name, "1")
        assert manifest.files == hash_files(Path(download_artifacts(artifact_uri=uri)))
        assert {"MLmodel", "model.skops"} <= manifest.files.keys()
        assert three.client.get_model_version(three.name, "1").tags["dosel.manifest"] == manifest.digest
        assert history(three)[0].evidence.manifest_digest == manifest.digest

    @pytest.mark.parametrize(
        ("file", "message"),
        [
            ("model.skops", "model.skops changed"),
            ("MLmodel", "MLmodel changed"),
            ("extra.py", "not in the manifest"),
            ("serving/classifier.onnx", "classifier.onnx changed"),
        ],
    )
    def test_changed_files_are_never_loaded(self, file: str, message: str, three: World, tamper: Tamper) -> None:
        tamper(3, file)
        registry = registry_of(three)
        version = registry.version(three.name, 3)
        with pytest.raises(UntrustedModel, match=f"version 3: its files are not those .*{message}"):
            registry.load(version)
        with pytest.raises(UntrustedModel):
            registry.promote(version, "me", "why")
        assert registry.record_manifest(version) == registry.manifest(version)
        with pytest.raises(UntrustedModel):
            registry.load(version)
        assert moves(three) == [1, 2]

    def test_a_version_without_a_manifest_is_never_loaded(self, three: World) -> None:
        number = create_in_mlflow(three)
        registry = registry_of(three)
        version = registry.version(three.name, number)
        for act in (lambda: registry.load(version), lambda: registry.promote(version, "me", "why")):
            with pytest.raises(UntrustedModel, match=r"no manifest in the ledger.*dosel vouch"):
                act()
        registry.record_manifest(version)
        registry.promote(version, "me", "looked at it myself")
        assert_projected(three, number)

    def test_a_version_with_a_changed_manifest_is_not_loaded(self, three: World) -> None:
        with connect(three.settings.warehouse_url).begin() as connection:
            drop_triggers(connection)
            connection.execute(text("UPDATE manifests SET files = '{}' WHERE version = 3"))
        registry = registry_of(three)
        with pytest.raises(UntrustedModel):
            registry.load(registry.version(three.name, 3))

    def test_a_tampered_challenger_is_refused_by_the_gate(self, three: World, tamper: Tamper) -> None:
        tamper(3)
        outcome = three.pipeline("good").challenge(3, "me")
        assert not outcome.promoted
        assert "serving: " in outcome.reason
        assert "model.skops changed" in outcome.reason

    def test_no_challenger_is_promoted_against_a_tampered_champion(self, three: World, tamper: Tamper) -> None:
        tamper(2)
        outcome = three.pipeline("good").challenge(3, "me")
        assert not outcome.promoted
        assert "version 2, in Production, could not be scored" in outcome.reason
        assert moves(three) == [1, 2]


class TestForeignAlias:
    def test_an_alias_moved_to_a_version_that_passed_the_gate_is_followed(self, three: World) -> None:
        record_verdict(three, 3)
        three.client.set_registered_model_alias(three.name, "production", "3")
        assert registry_of(three).production_number(three.name) == 3
        last = history(three)[-1]
        assert (last.from_version, last.to_version, last.evidence.kind) == (2, 3, "followed")
        assert (last.actor, last.evidence.to_run) == ("somebody in MLflow", three.runs["good"])
        assert_projected(three, 3)
        assert three.aliases()["previous"] == 2

    def test_an_alias_moved_to_the_previous_version_is_followed(self, three: World) -> None:
        """A killed promotion would leave the same alias; the recorded projection distinguishes the two."""
        three.client.set_registered_model_alias(three.name, "production", "1")
        registry_of(three).reconcile(three.name)
        assert moves(three) == [1, 2, 1]
        assert_projected(three, 1)

    def test_an_alias_moved_to_a_version_that_was_rolled_back_is_put_back(self, three: World) -> None:
        registry = registry_of(three)
        registry.roll_back(three.name, "monitor", "it was harmed")
        three.client.set_registered_model_alias(three.name, "production", "2")
        assert registry.production_number(three.name) == 1
        assert "version 2 was rolled back" in registry.ledger.notes(three.name)[-1].text

    def test_an_alias_moved_to_a_version_that_was_refused_in_shadow_is_put_back(self, three: World) -> None:
        """It had passed the gate, and a person has decided since."""
        registry, now = registry_of(three), datetime.now(UTC)
        record_verdict(three, 3)
        run_id = registry.version(three.name, 3).run_id
        shadow = ShadowRecord(
            three.name, 1, "challenger", 3, run_id, 2, 2, now, now + timedelta(days=1), "the gate", "it passed"
        )
        registry.ledger.start_shadow(shadow)
        registry.ledger.end_shadow(shadow, ShadowEnd("refused", "a person", "worse on live rows"))
        three.client.set_registered_model_alias(three.name, "production", "3")
        assert registry.production_number(three.name) == 2
        assert "version 3 was in shadow" in registry.ledger.notes(three.name)[-1].text

    @pytest.mark.parametrize("why", ["unknown", "tampered", "never judged", "refused by the gate"])
    def test_an_alias_moved_to_any_other_version_is_put_back(
        self, why: str, three: World, tamper: Tamper, caplog: pytest.LogCaptureFixture
    ) -> None:
        number = create_in_mlflow(three) if why == "unknown" else 3
        if why == "tampered":
            record_verdict(three, 3)
            tamper(3)
        if why == "refused by the gate":
            record_verdict(three, 3, passed=False)
        three.client.set_registered_model_alias(three.name, "production", str(number))
        registry = registry_of(three)
        with caplog.at_level(logging.ERROR):
            assert registry.production_number(three.name) == 2
        assert f"moved to version {number} outside dosel and is put back" in caplog.text
        [note] = registry.ledger.notes(three.name)
        assert (note.sequence, f"version {number}" in note.text) == (2, True)
        assert moves(three) == [1, 2]
        assert_projected(three, 2)
        assert registry.open_notes(three.name) == [note.text]
        assert registry.reconcile(three.name).notes == ()

    def test_a_deleted_alias_is_put_back(self, three: World) -> None:
        three.client.delete_registered_model_alias(three.name, "production")
        assert registry_of(three).production_number(three.name) == 2
        assert moves(three) == [1, 2]

    def test_an_alias_before_any_promotion_is_followed_only_with_a_verdict(self, world: World) -> None:
        world.register("fair")
        world.client.set_registered_model_alias(world.name, "production", str(create_in_mlflow(world)))
        registry = registry_of(world)
        assert registry.production_number(world.name) is None
        assert world.aliases() == {}
        world.client.set_registered_model_alias(world.name, "production", "1")
        assert registry.production_number(world.name) is None
        record_verdict(world, 1)
        world.client.set_registered_model_alias(world.name, "production", "1")
        assert registry.production_number(world.name) == 1
        assert moves(world) == [1]

    def test_an_alias_moved_by_hand_does_not_hide_a_killed_promotion(self, three: World) -> None:
        registry = registry_of(three)
        registry.ledger.append(three.name, 3, "me", "killed after this", Evidence(to_run=three.runs["good"]))
        # The ledger decides at once; MLflow follows with the next reconciliation.
        assert registry.production_number(three.name) == 3
        registry.reconcile(three.name)
        assert moves(three) == [1, 2, 3]
        assert_projected(three, 3)


class TestLostVersions:
    def test_a_new_mlflow_with_an_old_ledger_starts_over_with_a_note(
        self, three: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A new MLflow counts versions from 1 again, so that the ledger's numbers mean other versions."""
        three.client.delete_registered_model(three.name)
        registry = registry_of(three)
        with caplog.at_level(logging.ERROR):
            assert registry.production_number(three.name) is None
        assert "MLflow has lost version 2, which is in Production by the ledger" in caplog.text
        assert [three.register("fair"), three.register("good")] == [1, 2]
        assert registry.production_number(three.name) is None
        outcome = three.pipeline("good").challenge(2, "the DAG")
        assert outcome.promoted
        assert outcome.reason.endswith("; no champion to compare with")
        assert moves(three) == [1, 2, 2]
        assert_projected(three, 2)
        assert len(registry.ledger.notes(three.name)) == 1

    def test_the_same_number_in_another_mlflow_is_another_version(self, three: World) -> None:
        three.client.delete_registered_model(three.name)
        assert [three.register("fair"), three.register("good")] == [1, 2]
        record_verdict(three, 2)
        three.client.set_registered_model_alias(three.name, "production", "2")
        assert registry_of(three).reconcile(three.name).notes == ()
        last = history(three)[-1]
        assert (last.from_version, last.to_version, last.evidence.kind) == (2, 2, "followed")
        assert last.evidence.to_run == three.runs["good"]
        assert_projected(three, 2)

    def test_a_new_warehouse_with_an_old_mlflow_trusts_no_version(self, three: World, engine: Engine) -> None:
        with engine.begin() as connection:
            drop_triggers(connection)
            for table in ("verdicts", "promotions", "projections", "manifests", "promotion_notes"):
                connection.execute(text(f"DELETE FROM {table}"))
        registry = registry_of(three)
        assert registry.production_number(three.name) is None
        assert three.aliases() == {"previous": 1}
        pipeline = three.pipeline("good")
        assert pipeline.training_due()
        with pytest.raises(UntrustedModel, match="no training process recorded"):
            three.register("good")
        # A training that the ledger does not have is not used: the models are trained again.
        assert pipeline.register(pipeline.train()) == 4
        assert pipeline.challenge(4, "the DAG").promoted
        assert_projected(three, 4)

    def test_a_version_deleted_while_in_production_can_be_rolled_back(self, three: World) -> None:
        with pytest.warns(FutureWarning):
            three.client.transition_model_version_stage(three.name, "2", "None")
        three.client.delete_model_version(three.name, "2")
        registry = registry_of(three)
        assert registry.production_number(three.name) is None
        entry = registry.roll_back(three.name, "me", "it is gone")
        assert entry.to_version == 1
        assert_projected(three, 1)

    def test_a_ledger_without_run_ids_is_migrated(self, world: World, engine: Engine) -> None:
        number = world.register("fair")
        with engine.begin() as connection:
            connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
            connection.execute(text("DROP TABLE promotions"))
            connection.execute(
                text(
                    "CREATE TABLE promotions (id INTEGER PRIMARY KEY, model VARCHAR(128), sequence INTEGER, "
                    "from_version INTEGER, to_version INTEGER, at DATETIME, actor VARCHAR(255), reason TEXT)"
                )
            )
            row = f"1, '{world.name}', 1, NULL, {number}, '2099-01-01 00:00:00', 'the DAG', 'accuracy 0.9'"
            connection.execute(text(f"INSERT INTO promotions VALUES ({row})"))
        registry = registry_of(world)
        assert registry.production_number(world.name) is None
        registry.ledger.sign_older(every=True)
        assert registry.production_number(world.name) == number
        [entry] = registry.ledger.history(world.name)
        assert entry.evidence == Evidence(kind="gate")
        assert_projected(world, number)


class TestRollBack:
    def test_repeated_rollbacks_go_further_back(self, three: World) -> None:
        registry = registry_of(three)
        registry.promote(registry.version(three.name, 3), "me", "number 3")
        assert [registry.roll_back(three.name, "me", "bad").to_version for _ in range(2)] == [2, 1]
        assert_projected(three, 1)
        with pytest.raises(PromotionRefused, match=f"there is no earlier version; `dosel versions {three.name}`"):
            registry.roll_back(three.name, "me", "bad")
        registry.promote(registry.version(three.name, 3), "me", "mended")
        assert registry.roll_back(three.name, "me", "bad").to_version == 1
        assert moves(three) == [1, 2, 3, 2, 1, 3, 1]
        assert {e.evidence.kind for e in history(three)} == {"manual", "rollback"}

    def test_a_rollback_can_name_an_earlier_production_version(self, three: World) -> None:
        registry = registry_of(three)
        with pytest.raises(PromotionRefused, match=r"version 3 was never in Production; choose one of 1, 2"):
            registry.roll_back(three.name, "me", "bad", to=3)
        assert registry.roll_back(three.name, "me", "bad", to=1).to_version == 1
        assert_projected(three, 1)

    def test_a_rollback_skips_tampered_versions(
        self, three: World, tamper: Tamper, caplog: pytest.LogCaptureFixture
    ) -> None:
        registry = registry_of(three)
        registry.promote(registry.version(three.name, 3), "me", "number 3")
        tamper(2)
        assert registry.roll_back(three.name, "me", "bad").to_version == 1
        assert "version 2: its files are not those that were registered" in caplog.text
        with pytest.raises(UntrustedModel):
            registry.roll_back(three.name, "me", "bad", to=2)

    def test_a_rollback_without_a_previous_version_is_refused(self, world: World) -> None:
        world.register("fair")
        with pytest.raises(PromotionRefused):
            registry_of(world).roll_back(world.name, "me", "bad")


class Killed(BaseException):
    """The kill of a process, which no handler catches."""


READS = frozenset(
    {"alias", "check", "families", "files", "history", "is_attested", "is_registered", "keys", "last", "lock"}
) | {
    *("manifest", "manifests", "attested", "notes", "of_family", "projected", "referenced_runs", "run_of", "staged"),
    *("verdicts", "version", "versions"),
}
"""The calls without an effect: a kill before one of them leaves the same state as a kill after the change before."""


class Mortal:
    """Pass calls on until the number of allowed changes is used up."""

    def __init__(self, target: Any, left: list[int]) -> None:
        self._target = target
        self._left = left

    def __getattr__(self, name: str) -> Any:
        if name in READS:
            return getattr(self._target, name)

        def step(*arguments: Any, **named: Any) -> Any:
            if self._left[0] == 0:
                raise Killed
            self._left[0] -= 1
            return getattr(self._target, name)(*arguments, **named)

        return step


class TestKills:
    """Kills before each change in turn; `make soak-registry` does the same with real processes and signals."""

    @pytest.mark.soak
    @pytest.mark.parametrize("move", ["promote", "roll back", "follow"])
    def test_the_next_call_after_a_kill_sets_mlflow_from_the_ledger(self, move: str, three: World) -> None:
        registry = registry_of(three)
        to = {"promote": 3, "roll back": 1, "follow": 3}[move]
        if move == "follow":
            record_verdict(three, 3)
        for steps in range(100):
            if move == "follow":
                three.client.set_registered_model_alias(three.name, "production", "3")
            if self._ended(three, move, steps):
                break
            last = registry.last_promotion(three.name)
            assert last is not None
            found = registry.reconcile(three.name)
            assert found.notes == ()
            assert_projected(three, moves(three)[-1])
            if move != "follow":
                # The move was either recorded before the kill or did not happen: reconciling adds no move.
                assert found.entry == last
            registry.promote(registry.version(three.name, 2), "me", "once more")
        assert steps > 4
        assert moves(three)[-1] == to
        assert_projected(three, to)
        kinds = {e.evidence.kind for e in history(three)}
        assert kinds == {"manual"} | (
            {"rollback"} if move == "roll back" else {"followed"} if move == "follow" else set()
        )

    @staticmethod
    def _ended(world: World, move: str, steps: int) -> bool:
        """Whether a move finished within this number of steps."""
        mortal, left = registry_of(world), [1000]
        version = mortal.version(world.name, 3)
        mortal._store, mortal._ledger = Mortal(mortal._store, left), Mortal(mortal._ledger, left)  # type: ignore[assignment]
        left[0] = steps
        try:
            match move:
                case "promote":
                    mortal.promote(version, "me", "why")
                case "roll back":
                    mortal.roll_back(world.name, "me", "bad")
                case "follow":
                    mortal.reconcile(world.name)
        except Killed:
            return False
        return True


class TestConflicts:
    def test_a_promotion_based_on_an_old_entry_is_refused(self, three: World) -> None:
        registry = registry_of(three)
        with pytest.raises(PromotionConflict, match="decide again"):
            registry.promote(registry.version(three.name, 3), "me", "why", after=1)
        assert moves(three) == [1, 2]

    def test_the_gate_runs_again_when_another_version_was_judged_during_evaluation(
        self, three: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise two comparisons would spend the budget of one look."""
        world, registry, judge, numbers = three, registry_of(three), Challenge._judge, list[int]()

        def slowly(self: Challenge, challenger: ModelVersion, champion: ModelVersion) -> tuple[Report, int]:
            report, looks = judge(self, challenger, champion)
            assert report.look is not None
            numbers.append(report.look.number)
            if len(numbers) == 1:
                other = Verdict(False, "not better", report.document() | {"rows": report.rows + 1})
                registry.add_verdict(registry.version(world.name, 1), other)
            return report, looks

        monkeypatch.setattr(Challenge, "_judge", slowly)
        before = registry.holdout(COVERTYPE).looks
        world.pipeline("good").challenge(3, "the DAG")
        assert numbers == [before + 1, before + 2]
        assert registry.holdout(COVERTYPE).looks == before + 2

    def test_the_gate_runs_again_when_production_changed_during_evaluation(
        self, three: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Fair beats poor, but good enters Production during the evaluation, and fair does not beat good."""
        world = three
        registry = registry_of(world)
        registry.roll_back(world.name, "me", "to poor")
        judge = Challenge._judge
        champions = []

        def slowly(self: Challenge, challenger: ModelVersion, champion: ModelVersion) -> tuple[Report, int]:
            report = judge(self, challenger, champion)
            champions.append(champion.version)
            if len(champions) == 1:
                registry.promote(registry.version(world.name, 3), "somebody", "meanwhile")
            return report

        monkeypatch.setattr(Challenge, "_judge", slowly)
        outcome = world.pipeline().challenge(2, "the DAG")
        assert champions == [1, 3]
        assert not outcome.promoted
        assert_projected(world, 3)


def test_the_gate_report_is_in_the_run_the_ledger_and_the_description(world: World) -> None:
    world.enter("poor")
    world.enter("good")
    registry = registry_of(world)
    version = registry.version(world.name, 2)
    report = read_report(world, version)
    entry = registry.last_promotion(world.name)
    assert entry is not None
    assert entry.evidence.gate == report
    assert [rule["holds"] for rule in report["rules"]] == [True] * 8
    assert entry.evidence.metrics_after["accuracy"] > entry.evidence.metrics_before["accuracy"]
    assert entry.evidence.data_digest == version.tags["dosel.data_digest"]
    assert version.metrics["gate_challenger_latency_ms"] > 0
    assert version.metrics["gate_production_latency_ms"] > 0
    assert "| interval | holds |" in world.client.get_model_version(world.name, "2").description


def test_a_gate_killed_after_the_promotion_still_publishes_its_verdict(world: World) -> None:
    """The repeated task logs the scores from the ledger's entry, without evaluating the models again."""
    number = world.enter("fair")
    registry = registry_of(world)
    run_id = registry.version(world.name, number).run_id
    expected = read_report(world, registry.version(world.name, number))
    world.client.delete_tag(run_id, "dosel.gate")
    world.client.update_model_version(world.name, str(number), description="")
    location = world.client.get_run(run_id).info.artifact_uri
    get_artifact_repository(location).delete_artifacts("gate.json")
    assert read_report(world, registry.version(world.name, number)) is None
    assert world.pipeline().challenge(number, "the DAG").promoted
    version = registry.version(world.name, number)
    assert read_report(world, version) == expected
    assert version.tags["dosel.gate"] == "passed"
    assert world.client.get_model_version(world.name, str(number)).description.startswith("Passed the gate")


@pytest.mark.soak
@pytest.mark.parametrize("side", ["challenger", "production"])
def test_a_version_of_another_split_is_refused(side: str, world: World, engine: Engine) -> None:
    world.enter("poor")
    run_id = world.runs["good" if side == "challenger" else "poor"]
    other = dict(registry_of(world).ledger.attested(world.name, run_id).facts.tags)  # type: ignore[union-attr]
    number = world.register("good")
    # The split in MLflow's tags has no effect.
    world.client.set_tag(run_id, "dosel.split_version", "h0-of-mlflow")
    _rewrite(engine, run_id, other | {"dosel.split_version": "h0-of-old"})
    registry_of(world).ledger.sign_older(every=True)
    outcome = world.pipeline().challenge(number, "me")
    assert not outcome.promoted
    assert "split: the splits differ" in outcome.reason
    assert f"{side} h0-of-old" in outcome.reason
    assert COVERTYPE.model_name == world.name
    assert moves(world) == [1]


def _rewrite(engine: Engine, run_id: str, tags: dict[str, str]) -> None:
    """Change the tags of a training in the ledger to those of a training with another split."""
    with engine.begin() as connection:
        drop_triggers(connection)
        row = connection.execute(select(MANIFESTS).where(MANIFESTS.c.run_id == run_id, MANIFESTS.c.version > 0)).one()
        facts = replace(Facts(**json.loads(row.facts)), tags=tags)
        manifest = Manifest(row.model, row.version, run_id, json.loads(row.files), facts)
        values = {"facts": json.dumps(facts.document()), "digest": manifest.digest}
        connection.execute(update(MANIFESTS).where(MANIFESTS.c.id == row.id).values(values))


def test_the_ledger_can_be_constructed_without_the_data_store() -> None:
    PromotionLedger(connect("mysql://nobody@127.0.0.1:1/nothing"))
