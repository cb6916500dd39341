"""Clearing away, tried on real artifacts: what anything names stays, dry run unless told."""

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from dosel.pipeline import Pipeline
from dosel.registry.gc import Collected, collect
from dosel.usecases.covertype import COVERTYPE
from tests.integration.worlds import FAMILIES, Deliveries, World, batch

pytestmark = pytest.mark.storage


def repository(world: World) -> ArtifactRepository:
    experiment = world.client.get_experiment_by_name(COVERTYPE.experiment)
    assert experiment
    return get_artifact_repository(experiment.artifact_location)


def objects(of: ArtifactRepository, below: str | None = None) -> list[str]:
    """Every file's path."""
    listed = of.list_artifacts(below)
    return [f.path for f in listed if not f.is_dir] + [p for f in listed if f.is_dir for p in objects(of, f.path)]


@pytest.fixture(autouse=True)
def alone(world: World) -> None:
    """Tests share the folder of the trained models: what others left there belongs to no run of this one's store."""
    counts(world, days=1, delete=True)


@pytest.fixture
def crowded(world: World, request: pytest.FixtureRequest) -> World:
    """Version 1 was in Production and 2 is; of a third training, made here, nothing was registered."""
    world.enter("poor")
    world.enter("fair")
    # Artifacts of its own: those of the other trainings are shared with other tests.
    pipeline = Pipeline(FAMILIES["good"], world.settings)
    pipeline.ingest(
        Deliveries(batch(world.rows[:120], 2, "another"), batch(request.getfixturevalue("received")(90, 7), 3))
    )
    pipeline.train()
    return world


def counts(world: World, days: int = 0, delete: bool = False) -> Collected:
    return collect(world.pipeline().registry, [COVERTYPE.experiment], days, delete)


def test_a_dry_run_deletes_nothing_and_says_what_would_go(crowded: World) -> None:
    before = objects(repository(crowded))
    # "good" of the shared store and the one trained here.
    assert counts(crowded) == Collected(runs=6, models=2, orphans=0, kept=7)
    assert counts(crowded, days=1) == Collected(runs=0, models=0, orphans=0, kept=13)
    assert objects(repository(crowded)) == before


def test_what_the_registry_names_answers_as_before(crowded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world, registry = crowded, crowded.pipeline().registry
    shared = world.client.get_run(world.runs["good"])
    _keep(world.client, monkeypatch, shared.info.run_id)
    before = objects(repository(world))
    found = counts(world, delete=True)
    assert (found.runs, found.models) == (3, 1)
    after = objects(repository(world))
    gone = set(before) - set(after)
    assert gone
    assert not set(after) - set(before)
    assert any(path.endswith("model.skops") for path in gone)
    for number in (1, 2):
        registry.load(registry.version(world.name, number))
        assert registry.store.read_report(registry.version(world.name, number))
    again = counts(world, delete=True)
    assert (again.runs, again.models, again.orphans) == (0, 0, 0)
    registry.roll_back(world.name, "me", "still possible")


def test_folders_that_no_run_has_go_too(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.enter("good")
    for family in ("poor", "fair"):
        _keep(world.client, monkeypatch, world.runs[family])
    (tmp_path / "left.txt").write_text("left behind")
    for folder in ("0123456789abcdef/artifacts", "models/m-gone/artifacts"):
        repository(world).log_artifact(str(tmp_path / "left.txt"), folder)
    before = objects(repository(world))
    assert counts(world, delete=True) == Collected(runs=0, models=0, orphans=2, kept=10)
    assert sorted(set(before) - set(objects(repository(world)))) == [
        "0123456789abcdef/artifacts/left.txt",
        "models/m-gone/artifacts/left.txt",
    ]


def test_a_run_that_is_registered_at_the_last_moment_stays(crowded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = crowded.pipeline().registry
    monkeypatch.setattr(registry.store, "is_registered", lambda _: True)
    before = objects(repository(crowded))
    collect(registry, [COVERTYPE.experiment], 0, delete=True)
    assert objects(repository(crowded)) == before


def test_what_still_runs_stays(crowded: World) -> None:
    with mlflow.start_run(experiment_id=crowded.client.get_experiment_by_name(COVERTYPE.experiment).experiment_id):
        assert counts(crowded).kept == 8


def _keep(client: MlflowClient, monkeypatch: pytest.MonkeyPatch, run_id: str) -> None:
    """Has a run of the shared store stay: its artifacts are other tests', too."""
    from dosel.registry.ledger import PromotionLedger

    named = PromotionLedger.referenced_runs
    monkeypatch.setattr(PromotionLedger, "referenced_runs", lambda self: named(self) | {run_id})
