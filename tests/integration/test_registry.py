"""The registry with a real MLflow store: versions, Production and trusted models."""

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestClassifier
from sklearn.preprocessing import FunctionTransformer

from dosel.db.engine import connect
from dosel.errors import ModelNotFound, RegistryError, UntrustedModel
from dosel.model import bundle, tags
from dosel.model.description import describe
from dosel.model.predictor import Predictor
from dosel.registry.ledger import PromotionLedger
from dosel.registry.registry import Registry
from dosel.rows import frames
from dosel.usecases.covertype import COVERTYPE
from tests.integration.worlds import FAMILIES, World


def ledger(world: World) -> PromotionLedger:
    return PromotionLedger(connect(world.settings.warehouse_url))


def test_nothing_is_registered_at_first(world: World) -> None:
    registry = world.pipeline().registry
    assert registry.versions(world.name) == []
    assert registry.production_number(world.name) is None
    assert registry.production(world.name) is None
    assert registry.last_promotion(world.name) is None
    with pytest.raises(ModelNotFound, match=f"{world.name} has no version 1"):
        registry.version(world.name, 1)


@pytest.mark.storage
def test_a_run_is_registered_once(world: World) -> None:
    assert [world.register("fair"), world.register("fair"), world.register("good"), world.register("fair")] == [
        1,
        1,
        2,
        1,
    ]
    assert [v.version for v in world.pipeline().registry.versions(world.name)] == [2, 1]
    assert world.client.get_registered_model(world.name).description == describe(FAMILIES["fair"])


def test_a_changed_declaration_describes_the_registered_model_at_the_next_registration(world: World) -> None:
    world.register("fair")
    world.client.update_registered_model(world.name, "from before")
    world.register("good")
    described = world.client.get_registered_model(world.name).description
    for part in (COVERTYPE.title, COVERTYPE.summary, *COVERTYPE.target.labels.values()):
        assert part in described


@pytest.mark.soak
def test_listed_versions_equal_the_versions_read_one_by_one(world: World) -> None:
    for family in ("poor", "fair", "good"):
        world.enter(family)
    world.client.create_model_version(world.name, "file:///made/by/hand")
    registry = world.pipeline().registry
    by_hand, *ours = registry.versions(world.name)
    assert ours == [registry.version(world.name, number) for number in (3, 2, 1)]
    assert "production" in ours[0].aliases
    assert (by_hand.version, by_hand.metrics) == (4, {})


def test_a_version_has_id_metrics_params_and_tags_of_its_run(world: World) -> None:
    world.register("fair")
    version = world.pipeline().registry.version(world.name, 1)
    run = world.client.get_run(world.runs["fair"])
    assert (version.name, version.version, version.run_id) == (world.name, 1, world.runs["fair"])
    assert version.metrics == run.data.metrics
    assert version.params == run.data.params
    assert version.tags[tags.DATA_DIGEST] == run.data.tags[tags.DATA_DIGEST]
    assert all(name.startswith("dosel.") for name in version.tags)
    assert (version.stage, version.aliases) == ("None", ("random_forest",))


def test_a_familys_alias_names_its_newest_version(world: World) -> None:
    for family in ("poor", "fair", "good", "fair"):
        world.register(family)
    registry = world.pipeline().registry
    assert registry.newest_of(world.name, "random_forest") == 3
    assert registry.newest_of(world.name, "lightgbm") is None


def test_a_run_without_a_model_cannot_be_registered(world: World) -> None:
    experiment = world.client.get_experiment_by_name(COVERTYPE.experiment)
    assert experiment
    empty = world.client.create_run(experiment.experiment_id).info.run_id
    with pytest.raises(RegistryError, match=f"run {empty} logged no model; train again"):
        world.pipeline().registry.register(COVERTYPE, empty)
    with pytest.raises(RegistryError, match=f"run {empty} compares no models; train again"):
        world.pipeline().register(empty)
    with pytest.raises(RegistryError, match="'no such run' is not the id of a run"):
        world.pipeline().register("no such run")


@pytest.mark.storage
def test_promotion_writes_the_ledger_and_its_projection(world: World) -> None:
    world.register("fair")
    world.register("good")
    registry = world.pipeline().registry
    registry.promote(registry.version(world.name, 1), "me", "first")
    assert (world.aliases(), world.stages()) == ({"production": 1}, {1: "Production", 2: "None"})
    registry.promote(registry.version(world.name, 2), "you", "second")
    assert world.aliases() == {"production": 2, "previous": 1}
    assert world.stages() == {1: "Archived", 2: "Production"}
    registry.promote(registry.version(world.name, 1), "me", "back again")
    assert world.aliases() == {"production": 1, "previous": 2}
    assert world.stages() == {1: "Production", 2: "Archived"}
    history = ledger(world).history(world.name)
    assert [(e.from_version, e.to_version, e.actor, e.reason) for e in history] == [
        (None, 1, "me", "first"),
        (1, 2, "you", "second"),
        (2, 1, "me", "back again"),
    ]
    assert registry.last_promotion(world.name) == history[-1]
    production = registry.production(world.name)
    assert production is not None
    assert (production.version, production.aliases) == (1, ("production",))


def test_promoting_again_changes_nothing(world: World) -> None:
    world.register("fair")
    registry = world.pipeline().registry
    version = registry.version(world.name, 1)
    entry = registry.promote(version, "me", "first")
    assert registry.promote(version, "you", "again") == entry
    assert ledger(world).history(world.name) == [entry]
    assert world.aliases() == {"production": 1}


@pytest.mark.parametrize("damage", ["before all", "alias", "stage", "two in the stage"])
def test_sync_aliases_repairs_any_state_of_mlflow(damage: str, world: World) -> None:
    """The states that a kill between ledger and MLflow or a click in MLflow's UI can leave."""
    for family in ("poor", "fair"):
        world.register(family)
    book, registry = ledger(world), world.pipeline().registry
    book.append(world.name, 1, "me", "first")
    if damage != "before all":
        registry.reconcile(world.name)
    book.append(world.name, 2, "me", "second")
    if damage == "alias":
        world.client.set_registered_model_alias(world.name, "production", "2")
    if damage in {"stage", "two in the stage"}:
        both = world.pipeline().registry
        both.reconcile(world.name)
        with pytest.warns(FutureWarning):
            world.client.transition_model_version_stage(world.name, "1", "Production")
    if damage == "stage":
        with pytest.warns(FutureWarning):
            world.client.transition_model_version_stage(world.name, "2", "None")
    for _ in range(2):
        registry.reconcile(world.name)
        assert world.aliases() == {"production": 2, "previous": 1}
        stages = world.stages()
        assert stages.pop(2) == "Production"
        assert "Production" not in stages.values()


def test_a_model_without_promotions_has_no_alias(world: World) -> None:
    world.register("fair")
    world.pipeline().registry.reconcile(world.name)
    assert (world.aliases(), world.stages()) == ({}, {1: "None"})


def test_plain_mlflow_finds_the_version_in_production(world: World, tmp_path: Path) -> None:
    world.enter("fair")
    features = frames.canonical(COVERTYPE, world.pipeline().batches.clean())
    registry = world.pipeline().registry
    expected = registry.load(registry.version(world.name, 1)).predict_proba(features)
    for mark in ("/Production", "@production"):
        # MLflow adds a file to what it loads, and other tests share these artifacts: load a copy.
        folder = tmp_path / mark.strip("/@")
        folder.mkdir()
        loaded = mlflow.sklearn.load_model(f"models:/{world.name}{mark}", dst_path=str(folder))
        assert (loaded.predict_proba(features) == expected).all()


def test_register_stores_the_backend_with_the_model(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    number, registry = world.register("fair"), world.pipeline().registry
    version = registry.version(world.name, number)
    manifest = registry.manifest(version)
    assert manifest is not None
    assert {"serving/form.json", "serving/classifier.onnx"} < set(manifest.files)
    with registry.files(version) as folder:
        found = bundle.read(folder)
        # A second conversion gives the same bytes, so that concurrent registrations have one manifest.
        assert Predictor(COVERTYPE, found.estimator).onnx == found.backend.onnx is not None
        monkeypatch.setattr(bundle, "requirements", lambda: ["a library of tomorrow"])
        assert bundle.read_backend(folder) == bundle.StoredBackend()


class Foreign(BaseEstimator):  # type: ignore[misc]
    def fit(self, x: object, y: object) -> "Foreign":
        return self

    def predict(self, x: object) -> list[int]:
        return [1]


@pytest.mark.parametrize(
    ("serialization", "model", "message"),
    [
        ("cloudpickle", RandomForestClassifier(1), r"has no model\.skops"),
        ("pickle", RandomForestClassifier(1), r"has no model\.skops"),
        ("skops", Foreign(), "types that are not trusted: .*Foreign"),
        ("skops", FunctionTransformer(print), "types that are not trusted: .*print"),
    ],
    ids=["cloudpickle", "pickle", "a foreign type", "a function that runs"],
)
def test_a_model_that_could_run_code_is_not_loaded(
    serialization: str, model: BaseEstimator, message: str, world: World
) -> None:
    """The model's own list of trusted types, which MLflow would accept, is ignored."""
    own_list = {"skops_trusted_types": [f"{__name__}.Foreign", "builtins.print"]} if serialization == "skops" else {}
    mlflow.set_experiment(COVERTYPE.experiment)
    with mlflow.start_run() as run:
        mlflow.sklearn.log_model(
            model.fit([[0.0], [1.0]], [1, 2]),
            name="model",
            serialization_format=serialization,
            pip_requirements=["scikit-learn"],
            **own_list,
        )
    registry = world.pipeline().registry
    with pytest.raises(UntrustedModel, match="no training process recorded"):
        registry.register(COVERTYPE, run.info.run_id)
    # A person's vouching for the files does not change that.
    number = 1
    registry.record_manifest(registry.version(world.name, number))
    with pytest.raises(UntrustedModel, match=message):
        registry.load(registry.version(world.name, number))
    outcome = world.pipeline().challenge(number, "me")
    assert not outcome.promoted
    assert outcome.reason.startswith("serving: ")
    assert registry.production(world.name) is None
    assert ledger(world).history(world.name) == []


def test_an_unreachable_server_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = Registry("http://127.0.0.1:1", ledger(world))
    with pytest.raises(RegistryError, match=r"MLflow at http://127\.0\.0\.1:1 cannot be reached .*is it running"):
        registry.production_number(world.name)


def test_a_version_with_missing_files_raises_a_registry_error(world: World) -> None:
    world.register("fair")
    client = MlflowClient(world.settings.tracking_uri)
    experiment = client.get_experiment_by_name(COVERTYPE.experiment)
    assert experiment
    bare = client.create_model_version(world.name, f"file://{world.settings.home}/gone", world.runs["fair"])
    registry = world.pipeline().registry
    with pytest.raises(RegistryError):
        registry.load(registry.version(world.name, int(bare.version)))
