"""Garbage collection on real artifacts: everything in use is kept, and a dry run is the default."""

import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sqlalchemy import create_engine, text

from dosel.pipeline import Pipeline
from dosel.registry.artifact_roots import ArtifactRoot, artifact_roots
from dosel.registry.gc import Collected, collect
from dosel.usecases.covertype import COVERTYPE
from tests.integration.worlds import FAMILIES, Deliveries, World, batch, read_report

GONE = "0123456789abcdef" * 2
"""The id of a run that never existed."""


def repository(world: World) -> ArtifactRepository:
    experiment = world.client.get_experiment_by_name(COVERTYPE.experiment)
    assert experiment
    return get_artifact_repository(experiment.artifact_location)


def file_paths(of: ArtifactRepository, below: str | None = None) -> list[str]:
    """The paths of all files of a repository."""
    listed = of.list_artifacts(below)
    return [f.path for f in listed if not f.is_dir] + [p for f in listed if f.is_dir for p in file_paths(of, f.path)]


@pytest.fixture(autouse=True)
def own_files_only(world: World, no_orphan_age: None) -> None:
    """Ignore files in the shared folder of trained models that belong to other tests."""
    counts(world, days=1, delete=True)


@pytest.fixture
def with_unregistered_run(world: World, request: pytest.FixtureRequest) -> World:
    """A world with version 2 in Production after version 1, and a third training without registered versions."""
    world.enter("poor")
    world.enter("fair")
    # This training has its own artifacts, since other tests share those of the others.
    pipeline = Pipeline(FAMILIES["poor"], world.settings)
    pipeline.ingest(
        Deliveries(batch(world.rows[:120], 2, "another"), batch(request.getfixturevalue("received")(90, 7), 3))
    )
    pipeline.train()
    return world


def counts(world: World, days: int = 0, delete: bool = False, roots: Sequence[ArtifactRoot] | None = None) -> Collected:
    return collect(world.pipeline().registry, [COVERTYPE.experiment], roots or roots_of(world), days, delete)


def roots_of(world: World) -> list[ArtifactRoot]:
    """The folder or bucket with all artifacts of this test's store."""
    experiment = world.client.get_experiment_by_name(COVERTYPE.experiment)
    assert experiment
    return [ArtifactRoot(experiment.artifact_location.rpartition("/")[0])]


@pytest.fixture
def no_orphan_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the waiting time of folders without a run to zero."""
    monkeypatch.setattr("dosel.registry.gc.ORPHAN_AGE", timedelta())


@pytest.mark.soak
def test_a_dry_run_lists_without_deleting(with_unregistered_run: World) -> None:
    before = file_paths(repository(with_unregistered_run))
    # "good" of the shared store and the one trained here.
    assert counts(with_unregistered_run) == Collected(runs=6, models=2, orphans=0, waiting=0, kept=7)
    assert counts(with_unregistered_run, days=1) == Collected(runs=0, models=0, orphans=0, waiting=0, kept=13)
    assert file_paths(repository(with_unregistered_run)) == before


def test_registered_versions_load_after_a_collection(
    with_unregistered_run: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, registry = with_unregistered_run, with_unregistered_run.pipeline().registry
    shared = world.client.get_run(world.runs["good"])
    _keep(world.client, monkeypatch, shared.info.run_id)
    before = file_paths(repository(world))
    found = counts(world, delete=True)
    assert (found.runs, found.models) == (3, 1)
    after = file_paths(repository(world))
    gone = set(before) - set(after)
    assert gone
    assert not set(after) - set(before)
    assert any(path.endswith("model.skops") for path in gone)
    for number in (1, 2):
        registry.load(registry.version(world.name, number))
        assert read_report(world, registry.version(world.name, number))
    again = counts(world, delete=True)
    assert (again.runs, again.models, again.orphans) == (0, 0, 0)
    registry.roll_back(world.name, "me", "still possible")


def test_folders_without_a_run_are_deleted(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.enter("good")
    for family in ("poor", "fair"):
        _keep(world.client, monkeypatch, world.runs[family])
    (tmp_path / "left.txt").write_text("left behind")
    for folder in (f"{GONE}/artifacts", f"models/m-{GONE}/artifacts"):
        repository(world).log_artifact(str(tmp_path / "left.txt"), folder)
    before = file_paths(repository(world))
    assert counts(world, delete=True) == Collected(runs=0, models=0, orphans=2, waiting=0, kept=10)
    assert sorted(set(before) - set(file_paths(repository(world)))) == [
        f"{GONE}/artifacts/left.txt",
        f"models/m-{GONE}/artifacts/left.txt",
    ]


@pytest.mark.soak
def test_a_run_registered_just_before_its_deletion_is_kept(
    with_unregistered_run: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = with_unregistered_run.pipeline().registry
    monkeypatch.setattr(registry.store, "is_registered", lambda _: True)
    before = file_paths(repository(with_unregistered_run))
    collect(registry, [COVERTYPE.experiment], roots_of(with_unregistered_run), 0, delete=True)
    assert file_paths(repository(with_unregistered_run)) == before


@pytest.mark.soak
def test_a_running_run_is_kept(with_unregistered_run: World) -> None:
    with mlflow.start_run(
        experiment_id=with_unregistered_run.client.get_experiment_by_name(COVERTYPE.experiment).experiment_id
    ):
        assert counts(with_unregistered_run).kept == 8


def test_a_folder_without_a_run_is_kept_for_six_hours_after_its_first_listing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dosel.registry.gc.ORPHAN_AGE", timedelta(hours=6))
    (tmp_path / "left.txt").write_text("left behind")
    repository(world).log_artifact(str(tmp_path / "left.txt"), f"{GONE}/artifacts")
    try:
        found = counts(world, days=1, delete=True)
        assert (found.orphans, found.waiting) == (0, 1)
        assert f"{GONE}/artifacts/left.txt" in file_paths(repository(world))
    finally:
        repository(world).delete_artifacts(GONE)


def test_artifacts_outside_the_installation_are_kept(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The artifact location is a folder outside the installation with a subfolder named like a run."""
    world.client.rename_experiment(
        world.client.get_experiment_by_name(COVERTYPE.experiment).experiment_id, "the real one"
    )
    victim = tmp_path / "home-of-an-admin" / GONE
    victim.mkdir(parents=True)
    (victim / "thesis.txt").write_text("years of work")
    world.client.create_experiment(COVERTYPE.experiment, str(victim.parent))
    found = counts(world, delete=True, roots=artifact_roots(world.settings))
    assert found == Collected(runs=0, models=0, orphans=0, waiting=0, kept=0)
    assert (victim / "thesis.txt").read_text() == "years of work"
    assert "outside of this installation's folders" in caplog.text


def test_symbolic_links_are_not_followed(world: World, tmp_path: Path) -> None:
    """A symbolic link in the installation's artifact folder leads outside; both names look like runs."""
    world.client.rename_experiment(
        world.client.get_experiment_by_name(COVERTYPE.experiment).experiment_id, "the real one"
    )
    victim = tmp_path / "home-of-an-admin"
    victim.mkdir()
    (victim / "thesis.txt").write_text("years of work")
    own = tmp_path / "mlflow" / "artifacts" / "7"
    own.mkdir(parents=True)
    (own / GONE).symlink_to(victim)
    world.client.create_experiment(COVERTYPE.experiment, str(own))
    assert counts(world, delete=True, roots=artifact_roots(world.settings)).orphans == 0
    assert (victim / "thesis.txt").read_text() == "years of work"
    shutil.rmtree(own)
    own.symlink_to(victim)
    (victim / GONE).mkdir()
    assert counts(world, delete=True, roots=artifact_roots(world.settings)).orphans == 0
    assert (victim / GONE).is_dir()


@pytest.mark.soak
def test_a_run_that_names_another_runs_folder_deletes_nothing_there(
    with_unregistered_run: World, caplog: pytest.LogCaptureFixture
) -> None:
    """An edit of MLflow's database can give a run the artifact folder of another run."""
    location = with_unregistered_run.client.get_run(with_unregistered_run.runs["fair"]).info.artifact_uri
    before = set(file_paths(get_artifact_repository(location)))
    engine = create_engine(with_unregistered_run.settings.tracking_uri)
    with engine.begin() as connection:
        mine = {"location": location, "run": with_unregistered_run.runs["good"]}
        connection.execute(text("UPDATE runs SET artifact_uri = :location WHERE run_uuid = :run"), mine)
    engine.dispose()
    counts(with_unregistered_run, delete=False)
    assert f"{with_unregistered_run.runs['good']} has its artifacts at" in caplog.text
    assert set(file_paths(get_artifact_repository(location))) == before


@pytest.mark.parametrize(
    ("location", "held"),
    [
        ("mlflow-artifacts:/7", True),
        ("mlflow-artifacts:/", False),
        ("mlflow-artifacts:/7/../..", False),
        ("mlflow-artifacts://elsewhere:5000/7", False),
        ("s3://mlflows3/7", True),
        ("s3://another/7", False),
        ("/etc", False),
        ("file:///etc", False),
    ],
)
def test_only_folders_of_the_installation_are_collected(location: str, held: bool, world: World) -> None:
    assert any(root.holds(location) for root in artifact_roots(world.settings)) == held


def _keep(client: MlflowClient, monkeypatch: pytest.MonkeyPatch, run_id: str) -> None:
    """Keep a run of the shared store, since other tests use its artifacts."""
    from dosel.registry.ledger import PromotionLedger

    named = PromotionLedger.referenced_runs
    monkeypatch.setattr(PromotionLedger, "referenced_runs", lambda self: named(self) | {run_id})
