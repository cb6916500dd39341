"""Changes in MLflow by others: only files of a recorded training can enter Production."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from dosel.errors import DeclarationChanged, UntrustedModel
from dosel.model import bundle, tags
from dosel.pipeline import Pipeline
from dosel.registry.file_verification import trusted_files
from dosel.registry.mlflow_calls import CheckFiles, Run, TooLarge
from dosel.registry.registry import Registry
from dosel.registry.store import ModelVersion, Store
from dosel.usecases.covertype import COVERTYPE
from tests.integration.worlds import FAMILIES, World


def replace_downloads(monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]) -> None:
    """Change the downloaded files and not the artifact store, which other tests share."""
    original = download_artifacts

    def download(*args: Any, **kwargs: Any) -> str:
        path: str = original(*args, **kwargs)
        change(Path(path))
        return path

    monkeypatch.setattr("dosel.registry.mlflow_library.download_artifacts", download)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("model.skops", "model.skops changed"),
        ("serving/classifier.onnx", "serving/classifier.onnx changed"),
        ("serving/form.json", "serving/form.json changed"),
        ("MLmodel", "MLmodel changed"),
        ("serving/another.onnx", "serving/another.onnx not in the manifest"),
    ],
)
def test_files_replaced_between_training_and_registration_are_refused(
    file: str, message: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        replace_downloads(patched, lambda folder: (folder / file).write_bytes(b"a stranger's"))
        with pytest.raises(UntrustedModel, match=message):
            world.register("fair")
    registry = world.pipeline().registry
    [note] = registry.ledger.notes(world.name)
    assert "version 1 is refused at registration" in note.text
    assert message in note.text
    # The version stays in MLflow; it is neither loaded nor promoted, with or without its original files.
    version = registry.version(world.name, 1)
    for act in (lambda: registry.load(version), lambda: registry.promote(version, "me", "why")):
        with pytest.raises(UntrustedModel):
            act()
    assert registry.verdict(version) is not None
    assert registry.newest_of(world.name, "random_forest") is None
    world.client.set_registered_model_alias(world.name, "production", "1")
    assert registry.production_number(world.name) is None
    assert not registry.ledger.is_attested(world.name, world.runs["fair"])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("model.skops", r"model\.skops changed"),
        ("more.bin", r"more\.bin not in the manifest"),
        ("model.sig", r"model\.sig not in the manifest"),
    ],
)
def test_a_file_of_another_size_is_refused_before_it_is_fetched(path: str, message: str, world: World) -> None:
    """Who can write to the artifact store could otherwise fill the disk of each process that loads the version."""
    registry = world.pipeline().registry
    version = registry.version(world.name, world.register("fair"))
    manifest = registry.manifest(version)
    assert manifest is not None
    assert manifest.facts is not None
    sizes = manifest.facts.sizes
    assert sizes.keys() == manifest.files.keys()

    class Larger(Store):
        @contextmanager
        def files(self, _: ModelVersion, check: CheckFiles | None = None) -> Iterator[Path]:
            assert check is not None
            check({**sizes, "model.sig": 2_000} | {path: 3_000_000_000})
            pytest.fail("it was fetched")
            yield Path()

    with (
        pytest.raises(UntrustedModel, match=message),
        trusted_files(Larger(registry.store.uri), registry.ledger, version),
    ):
        pass


def test_a_model_with_another_digest_than_recorded_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's digest matches, and the model's digest does not."""
    monkeypatch.setattr("dosel.model.digest.digest", lambda _: "f" * 64)
    with pytest.raises(UntrustedModel, match="the model's digest is ffff"):
        world.register("fair")


def test_a_run_that_no_training_recorded_is_not_registered(world: World) -> None:
    experiment = world.client.get_experiment_by_name(COVERTYPE.experiment)
    assert experiment
    known = world.client.get_run(world.runs["fair"])
    copied = world.client.create_run(experiment.experiment_id, tags=known.data.tags)
    world.client.log_outputs(copied.info.run_id, known.outputs.model_outputs)
    with pytest.raises(UntrustedModel, match=f"no training process recorded the files of run {copied.info.run_id}"):
        world.pipeline().registry.register(COVERTYPE, copied.info.run_id)


def test_the_manifest_is_recorded_before_the_upload(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the upload begins, the ledger has the digests of exactly the uploaded files."""
    recorded = []
    ledger = world.pipeline("good").registry.ledger

    def upload(_: MlflowClient, model_id: str, folder: str, *__: object) -> None:
        run_id = world.client.get_logged_model(model_id).source_run_id
        manifest = ledger.attested(world.name, run_id)
        recorded.append(manifest is not None and manifest.files == bundle.hash_files(Path(folder)))
        raise ConnectionError("the upload broke off")

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", upload)
    monkeypatch.setattr(ledger.__class__, "is_attested", lambda *_: False)
    with pytest.raises(ConnectionError):
        world.pipeline("good").train()
    assert recorded == [True]


def by_hand(world: World, run_id: str | None, **changes: str) -> int:
    """Create a version directly in MLflow, with tags on its run if it has one."""
    source = str(world.client.get_model_version(world.name, "1").source)
    number = int(world.client.create_model_version(world.name, source, run_id).version)
    for name, value in changes.items():
        world.client.set_model_version_tag(world.name, str(number), name, value)
        if run_id == world.runs["good"]:
            world.client.set_tag(run_id, f"dosel.{name}", value)
    return number


ODD: dict[str, Callable[[World], int]] = {
    "without a run": lambda world: by_hand(world, None),
    "a quote in the run's id": lambda world: by_hand(world, "x' OR name = 'y"),
    "a run that does not exist": lambda world: by_hand(world, "0" * 32),
    "a run's id of 32 other letters": lambda world: by_hand(world, "Z" * 32),
    "tags that are no JSON": lambda world: by_hand(
        world, world.runs["good"], batch_ids="{", example_answer="[1", rows_train="many", families="x"
    ),
    "JSON of another shape": lambda world: by_hand(
        world, world.runs["good"], batch_ids="{}", example_answer='{"a": []}', rows_train="[[]]"
    ),
    "huge tags": lambda world: by_hand(world, world.runs["good"], gate_reason="x" * 4900, batch_ids="[" * 4900),
    "no tags": lambda world: by_hand(world, world.runs["poor"]),
}


@pytest.mark.soak
@pytest.mark.parametrize("oddity", ODD)
def test_an_unusual_version_in_mlflow_does_not_stop_the_registry(oddity: str, world: World) -> None:
    world.enter("poor")
    world.register("fair")
    number = ODD[oddity](world)
    world.client.set_registered_model_alias(world.name, "production", str(number))
    with pytest.warns(FutureWarning):
        world.client.transition_model_version_stage(world.name, str(number), "Production")
    registry = world.pipeline().registry
    assert registry.production_number(world.name) == 1
    assert "put back" in registry.open_notes(world.name)[0]
    assert (world.aliases()["production"], world.stages()[1]) == (1, "Production")
    assert [v.version for v in registry.versions(world.name)] == [number, 2, 1]
    odd = registry.version(world.name, number)
    assert not odd.attested
    with pytest.raises(UntrustedModel, match="no manifest"):
        registry.promote(odd, "me", "why")
    assert not world.pipeline().challenge(number, "me").promoted
    if oddity not in ("without a run", "no tags"):
        return
    world.client.set_registered_model_alias(world.name, "production", str(number))
    assert registry.promote(registry.version(world.name, 2), "me", "why").to_version == 2
    world.client.set_registered_model_alias(world.name, "production", str(number))
    assert registry.roll_back(world.name, "me", "why").to_version == 1
    assert world.pipeline("good").challenge(world.register("good"), "me").promoted


def test_a_stage_moved_in_mlflow_is_put_back_with_a_note(world: World) -> None:
    world.enter("poor")
    world.register("fair")
    with pytest.warns(FutureWarning):
        world.client.transition_model_version_stage(world.name, "2", "Production", archive_existing_versions=True)
    registry = world.pipeline().registry
    assert registry.reconcile(world.name).notes == (
        "the stage Production was moved to 2 outside dosel and is put back",
    )
    assert world.stages() == {1: "Production", 2: "Archived"}
    assert registry.reconcile(world.name).notes == ()


def test_tags_of_a_comparison_do_not_choose_the_challenger(world: World) -> None:
    """The tag with the best family can be edited in MLflow; the scores in the ledger decide."""
    world.client.set_tag(world.trainings["fair"], tags.BEST_FAMILY, "nobody")
    assert world.register("fair") == 1


def test_versions_with_manifests_from_registration_are_still_served(world: World) -> None:
    """An older dosel recorded the manifest at registration, without facts."""
    registry: Registry = world.pipeline().registry
    source = f"models:/{world.client.get_run(world.runs['fair']).outputs.model_outputs[0].model_id}"
    world.client.create_registered_model(world.name)
    world.client.create_model_version(world.name, source, world.runs["fair"])
    world.client.set_registered_model_alias(world.name, "random_forest", "1")
    old = registry.version(world.name, 1)
    manifest = registry.record_manifest(old)
    assert manifest.facts is None
    registry.promote(old, "me", "as before")
    registry.load(old)
    assert registry.production_number(world.name) == registry.newest_of(world.name, "random_forest") == 1
    assert world.pipeline("good").challenge(world.register("good"), "the DAG").promoted


def test_an_invalid_run_id_is_refused(world: World) -> None:
    from dosel.errors import RegistryError

    for act in (Store(world.settings.tracking_uri).is_registered, world.pipeline().register):
        with pytest.raises(RegistryError, match="is not the id of a run"):
            act("x' OR name = 'y")


def test_a_version_of_another_declaration_is_neither_promoted_nor_used_as_champion(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.enter("poor")
    world.register("fair")
    in_feet = (replace(COVERTYPE.numbers[0], unit="ft"), *COVERTYPE.features[1:])
    monkeypatch.setattr("dosel.registry.file_verification.ALL", (replace(COVERTYPE, features=in_feet),))
    registry = world.pipeline().registry
    with pytest.raises(DeclarationChanged, match=r"Elevation: unit was 'm', is 'ft'.*Train a new version"):
        registry.promote(registry.version(world.name, 2), "me", "why")
    pipeline = Pipeline(replace(FAMILIES["fair"], features=in_feet), world.settings)
    assert pipeline.training_due()
    outcome = pipeline.challenge(pipeline.register(pipeline.train()), "the DAG")
    assert outcome.promoted
    assert outcome.reason.endswith("no champion to compare with")
    assert not pipeline.training_due()


def test_a_run_that_somebody_made_too_large_is_left_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody with access to MLflow can log thousands of metrics; what matters of a version is in the ledger."""
    world.entered("good")
    number, registry = 1, world.pipeline().registry
    whole = registry.version(world.name, number)
    asked = list[str]()

    def too_large(run_id: str) -> Run:
        asked.append(run_id)
        raise TooLarge("its answer has more than 8,000,000 bytes")

    def together(run_ids: Sequence[str]) -> list[Run]:
        raise TooLarge(f"its answer for {len(run_ids)} runs has more than 20,000 JSON objects")

    monkeypatch.setattr(registry.store._mlflow, "run", too_large)
    monkeypatch.setattr(registry.store._mlflow, "runs", together)
    [listed] = registry.versions(world.name)
    assert (listed.metrics, listed.tags, listed.attested) == (whole.metrics, whole.tags, True)
    assert registry.version(world.name, number).metrics == whole.metrics
    # For some minutes it is not asked for again.
    assert asked == [whole.run_id]
