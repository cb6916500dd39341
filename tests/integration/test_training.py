"""Training with a real MLflow store: the search, the recorded runs and repeated trainings."""

import dataclasses
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import mlflow
import numpy as np
import pandas as pd
import pytest
import sklearn
from mlflow import MlflowClient
from mlflow.entities import Run, RunStatus, ViewType
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from sklearn import model_selection
from sklearn.model_selection import ParameterGrid, cross_val_score

from dosel.db.engine import connect
from dosel.errors import TrainingError
from dosel.model import bundle, tags
from dosel.model.description import describe
from dosel.model.digest import digest
from dosel.model.fingerprint import code_version
from dosel.quality import check
from dosel.registry.ledger import PromotionLedger
from dosel.rows import frames, hashing, splits
from dosel.training import search, tracking
from dosel.training.fan_out import Threads
from dosel.training.input_digests import family_key, training_key
from dosel.training.preprocessing import pipeline
from dosel.training.train import TrainingData, train
from dosel.usecases import Family, Range, UseCase
from dosel.usecases.covertype import COVERTYPE
from tests.integration.worlds import FAMILIES, World

Received = Callable[..., list[list[str]]]
TINY = FAMILIES["poor"]


def ledger_of(uri: str) -> PromotionLedger:
    """The ledger that belongs to an MLflow store: a file beside it, or in the test's folder beside a server."""
    return PromotionLedger(connect(f"{uri}.ledger" if uri.startswith("sqlite") else "sqlite:///ledger.db"))


def empty_store(empty_mlflow: Path, folder: Path, name: str = "mlflow") -> str:
    """The address of an MLflow store in a folder, with the experiment and no runs."""
    uri = f"sqlite:///{shutil.copy(empty_mlflow, folder / f'{name}.db')}"
    MlflowClient(uri).create_experiment(COVERTYPE.experiment, str(folder / "artifacts"))
    return uri


def training_data(received: list[list[str]], batch_ids: tuple[int, ...] = (1, 2)) -> TrainingData:
    table = check(COVERTYPE, received, "uci").accepted
    return TrainingData(table, hashing.row_keys(COVERTYPE, table), batch_ids)


GRID = {n: list(v) for n, v in COVERTYPE.families[0].space.items() if not isinstance(v, Range)}
"""The declared grid."""

EACH_FAMILY = dataclasses.replace(
    COVERTYPE,
    families=tuple(
        dataclasses.replace(family, space={n: v if isinstance(v, Range) else v[:1] for n, v in family.space.items()})
        for family in COVERTYPE.families
    ),
)
"""Each declared family with one candidate."""


def runs(uri: str, conditions: str = "") -> list[Run]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(COVERTYPE.experiment)
    assert experiment
    found: list[Run] = client.search_runs([experiment.experiment_id], conditions, ViewType.ALL, max_results=1000)
    return found


def children(uri: str, run_id: str) -> list[Run]:
    """The runs of the candidates, in the order of the search."""
    found = runs(uri, f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}'")
    return sorted(found, key=lambda run: int(run.data.tags[tags.CANDIDATE].partition("/")[0]))


@pytest.fixture(scope="module")
def data(received: Received) -> TrainingData:
    return training_data(received(200))


@pytest.fixture(scope="module")
def searched(data: TrainingData, empty_mlflow: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The store and the run of one declared search, which the tests only read."""
    uri = empty_store(empty_mlflow, tmp_path_factory.mktemp("searched"))
    return uri, train(COVERTYPE, data, uri, ledger_of(uri), seed=1, engine=Threads(2))


@pytest.fixture
def searched_uri(searched: tuple[str, str], bare_environment: None) -> Iterator[str]:
    mlflow.set_tracking_uri(searched[0])
    yield searched[0]
    mlflow.set_tracking_uri(None)


def family_run(uri: str, comparison: str, family: str = "random_forest") -> Run:
    client = MlflowClient(uri)
    return client.get_run(json.loads(client.get_run(comparison).data.tags[tags.FAMILIES])[family])


@pytest.fixture
def comparison(searched: tuple[str, str], searched_uri: str) -> Run:
    return MlflowClient(searched_uri).get_run(searched[1])


@pytest.fixture
def whole_search(comparison: Run, searched_uri: str) -> Run:
    """The run of the random forest, the family that covertype had first."""
    return family_run(searched_uri, comparison.info.run_id)


def test_families_are_compared_by_cross_validation_in_one_run(comparison: Run, searched_uri: str) -> None:
    client = MlflowClient(searched_uri)
    names = [family.name for family in COVERTYPE.families]
    of = {name: family_run(searched_uri, comparison.info.run_id, name) for name in names}
    assert {run.data.tags[MLFLOW_PARENT_RUN_ID] for run in of.values()} == {comparison.info.run_id}
    scores = {name: run.data.metrics["best_cv_score"] for name, run in of.items()}
    best = max(scores, key=scores.__getitem__)
    assert comparison.data.tags[tags.BEST_FAMILY] == best
    for name, run in of.items():
        assert comparison.data.metrics[f"{name}_best_cv_score"] == scores[name]
        for figure in ("holdout_f1_macro", "holdout_precision_macro", "holdout_recall_macro"):
            assert comparison.data.metrics[f"{name}_{figure}"] == run.data.metrics[figure]
    assert comparison.data.metrics["holdout_accuracy"] == of[best].data.metrics["holdout_accuracy"]
    files = {file.path for file in client.list_artifacts(comparison.info.run_id, "comparison")}
    assert files == {"comparison/families.md", *(f"comparison/{name}_confusion_matrix.png" for name in names)}


def test_mlflow_opens_on_dated_names_and_a_description_of_the_use_case(
    comparison: Run, whole_search: Run, searched_uri: str, data: TrainingData
) -> None:
    experiment = MlflowClient(searched_uri).get_experiment_by_name(COVERTYPE.experiment)
    assert experiment.tags["mlflow.note.content"] == describe(COVERTYPE)
    ends = rf" · {len(data.table)} rows · \d{{1,2}} [A-Z][a-z][a-z] \d\d:\d\d UTC"
    for run, family in ((comparison, comparison.data.tags[tags.BEST_FAMILY]), (whole_search, "random_forest")):
        score = round(run.data.metrics[f"holdout_{COVERTYPE.gate.metric}"], 3)
        assert re.fullmatch(f"{re.escape(str(score))} {family}{ends}", run.info.run_name)


@pytest.mark.parametrize(("is_open", "name"), [(True, "0.849 extra_trees"), (False, "0.85 extra_trees")])
def test_the_name_of_a_run_starts_with_its_score_which_is_coarse_for_a_closed_use_case(
    is_open: bool, name: str
) -> None:
    use_case = dataclasses.replace(COVERTYPE, expose_training_rows=is_open)
    assert tracking.with_score(use_case, 0.84912, "extra_trees") == name


def test_the_experiment_has_the_view_that_links_open(comparison: Run, searched_uri: str) -> None:
    experiment = MlflowClient(searched_uri).get_experiment_by_name(COVERTYPE.experiment)
    state = json.loads(experiment.tags["mlflow.sharedViewState.dosel"])
    assert state["selectedColumns"] == ["metrics.`holdout_accuracy`", "metrics.`holdout_f1_macro`"]
    assert set(state["columnOrder"]) == set(state["columnWidths"]) >= set(state["selectedColumns"])
    assert {"holdout_accuracy", "holdout_f1_macro"} <= comparison.data.metrics.keys()


def test_the_next_training_reuses_a_finished_family(
    tracking_uri: str, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    forest = TINY.families[0]
    two = dataclasses.replace(TINY, families=(forest, dataclasses.replace(forest, name="second")))
    searched = []

    def ended(use_case: UseCase, family: Family, *arguments: Any) -> Any:
        searched.append(family.name)
        if searched == ["random_forest", "second"]:
            raise KeyboardInterrupt
        return search.search_of(use_case, family, *arguments)

    monkeypatch.setattr("dosel.training.rows.search_of", ended)
    with pytest.raises(KeyboardInterrupt):
        train(two, data, tracking_uri, ledger_of(tracking_uri), seed=1, engine=Threads(1))
    run_id = train(two, data, tracking_uri, ledger_of(tracking_uri), seed=1, engine=Threads(1))
    assert searched == ["random_forest", "second", "second"]
    first = family_run(tracking_uri, run_id)
    assert first.data.tags[MLFLOW_PARENT_RUN_ID] == run_id
    assert first.data.tags[tags.TRAINING_KEY] == training_key(two, data.digest, 1)


def test_each_of_the_27_declared_candidates_has_a_run(whole_search: Run, searched_uri: str) -> None:
    candidates = children(searched_uri, whole_search.info.run_id)
    grid = list(ParameterGrid(dict(GRID)))
    for run, params in zip(candidates, grid, strict=True):
        searched = {**params, **{f"classifier__{name}": value for name, value in params.items()}}
        assert {n: str(v) for n, v in searched.items()}.items() <= run.data.params.items()
    assert [run.data.tags[tags.CANDIDATE] for run in candidates] == [f"{i}/27" for i in range(1, 28)]
    assert {run.info.status for run in candidates} == {"FINISHED"}
    assert all({"mean_test_score", "std_test_score", "split2_test_score"} <= set(r.data.metrics) for r in candidates)
    scores = [run.data.metrics["mean_test_score"] for run in candidates]
    ranks = [run.data.metrics["rank_test_score"] for run in candidates]
    assert ranks == [1 + sum(other > score for other in scores) for score in scores]
    parent = whole_search.data
    best = ranks.index(1)
    assert parent.metrics["best_cv_score"] == scores[best]
    assert {n: parent.params[f"best_classifier__{n}"] for n in grid[best]} == {n: str(v) for n, v in grid[best].items()}


def test_a_score_is_the_cross_validation_score_on_training_rows(
    whole_search: Run, searched_uri: str, data: TrainingData
) -> None:
    part = data.table[~hashing.is_held_out(COVERTYPE, data.table)]
    candidates = children(searched_uri, whole_search.info.run_id)
    for run in (candidates[0], candidates[-3]):
        params = {name: int(run.data.params[name]) for name in COVERTYPE.families[0].space}
        forest = COVERTYPE.families[0].build(1).set_params(**params)
        scores = cross_val_score(
            pipeline(COVERTYPE, forest), frames.canonical(COVERTYPE, part), part["Cover_Type"], cv=3, scoring="accuracy"
        )
        assert run.data.metrics["mean_test_score"] == pytest.approx(scores.mean(), abs=1e-12)


def test_the_run_has_its_lineage_as_tags(whole_search: Run, data: TrainingData) -> None:
    held_out = hashing.is_held_out(COVERTYPE, data.table)
    tags = {n.removeprefix("dosel."): v for n, v in whole_search.data.tags.items() if n.startswith("dosel.")}
    assert sum(json.loads(tags.pop("example_answer")).values()) == pytest.approx(1)
    assert len(tags.pop("model_digest")) == 64
    assert json.loads(tags.pop("libraries"))["scikit-learn"] == sklearn.__version__
    assert len(tags.pop("lock")) == 64
    # Only a checkout of git has one.
    assert tags.pop("commit", "a commit")
    assert tags == {
        "training_key": training_key(COVERTYPE, data.digest, 1),
        "family_key": family_key(COVERTYPE, COVERTYPE.families[0], data.digest, 1),
        "run": "family",
        "use_case": "covertype",
        "family": "random_forest",
        "code_version": code_version(),
        "data_digest": data.digest,
        "batch_ids": "[1, 2]",
        "split_version": splits.split_version(COVERTYPE),
        "rows_train": str((~held_out).sum()),
        "rows_test": str(held_out.sum()),
        "cores": "2",
        "seed": "1",
    }
    assert whole_search.info.status == "FINISHED"
    (dataset,) = whole_search.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("covertype_clean", data.digest[:36])


def test_the_metrics_are_computed_on_held_out_rows(
    whole_search: Run, searched_uri: str, data: TrainingData, tmp_path: Path
) -> None:
    held_out = data.table[hashing.is_held_out(COVERTYPE, data.table)]
    model = mlflow.sklearn.load_model(f"runs:/{whole_search.info.run_id}/model")
    right = model.predict(frames.canonical(COVERTYPE, held_out)) == held_out["Cover_Type"]
    metrics = whole_search.data.metrics
    assert metrics["holdout_accuracy"] == right.mean()
    # MLflow shows them in this order.
    assert [name.partition("_")[0] for name in metrics] == ["holdout"] * 8 + ["best"] + ["training"] * 7
    figures = {f"holdout_{n}_{a}" for n in ("precision", "recall", "f1") for a in ("macro", "weighted")}
    assert {"holdout_accuracy", "holdout_balanced_accuracy"} | figures <= set(metrics)
    client = MlflowClient(searched_uri)
    picture = client.download_artifacts(whole_search.info.run_id, "holdout_confusion_matrix.png", str(tmp_path))
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    report = client.download_artifacts(whole_search.info.run_id, "evaluation/per_class_report.json", str(tmp_path))
    assert json.loads(Path(report).read_text())["accuracy"] == metrics["holdout_accuracy"]


def test_a_training_logs_one_model_that_is_a_pipeline(whole_search: Run, searched_uri: str) -> None:
    client = MlflowClient(searched_uri)
    (output,) = whole_search.outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert logged.source_run_id == whole_search.info.run_id
    model = mlflow.sklearn.load_model(logged.model_uri)
    assert [name for name, _ in model.steps] == ["preprocess", "classifier"]


def test_the_logged_model_has_a_signature(whole_search: Run, searched_uri: str) -> None:
    info = mlflow.models.get_model_info(f"runs:/{whole_search.info.run_id}/model")
    assert info.signature.inputs.input_names() == list(COVERTYPE.feature_names)
    assert info.flavors["sklearn"]["serialization_format"] == bundle.FORMAT
    folder = Path(mlflow.artifacts.download_artifacts(f"runs:/{whole_search.info.run_id}/model"))
    example = json.loads((folder / "input_example.json").read_text())
    assert dict(zip(example["columns"], example["data"][0], strict=True)) == COVERTYPE.example
    assert set(bundle.requirements()) <= set((folder / "requirements.txt").read_text().split())
    assert bundle.read_estimator(folder).classes_.tolist() == [1, 2, 3, 4, 5, 6, 7]
    answered = mlflow.pyfunc.load_model(str(folder)).predict(pd.DataFrame([COVERTYPE.example]))
    assert answered[0] in COVERTYPE.target.labels


def test_the_same_training_is_not_repeated(comparison: Run, searched_uri: str, data: TrainingData) -> None:
    before = Counter(run.info.status for run in runs(searched_uri))
    shuffled = data.table.sample(frac=1, random_state=0)
    again = TrainingData(shuffled, hashing.row_keys(COVERTYPE, shuffled), (7,))
    assert (
        train(COVERTYPE, again, searched_uri, ledger_of(searched_uri), seed=1, engine=Threads(2))
        == comparison.info.run_id
    )
    assert Counter(run.info.status for run in runs(searched_uri)) == before


def replaced(**changes: Any) -> UseCase:
    return dataclasses.replace(COVERTYPE, **changes)


@pytest.mark.parametrize(
    ("use_case", "digest", "seed"),
    [
        (COVERTYPE, "d2", 1),
        (COVERTYPE, "d1", 2),
        (replaced(folds=5), "d1", 1),
        (replaced(split=dataclasses.replace(COVERTYPE.split, salt="2")), "d1", 1),
        (replaced(families=TINY.families), "d1", 1),
        (replaced(name="other"), "d1", 1),
    ],
    ids=["rows", "seed", "folds", "split", "grid", "use case"],
)
def test_the_training_key_depends_on_everything_that_decides_the_result(
    use_case: UseCase, digest: str, seed: int
) -> None:
    assert training_key(use_case, digest, seed) != training_key(COVERTYPE, "d1", 1)


def test_the_training_key_does_not_depend_on_the_order_of_a_grid() -> None:
    forest, *others = COVERTYPE.families
    turned = dataclasses.replace(forest, space=dict(reversed(list(forest.space.items()))))
    assert training_key(replaced(families=(turned, *others)), "d1", 1) == training_key(COVERTYPE, "d1", 1)


def test_runs_of_a_killed_training_are_marked_as_killed(tracking_uri: str, data: TrainingData) -> None:
    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name(COVERTYPE.experiment)
    assert experiment
    here = experiment.experiment_id
    key = training_key(TINY, data.digest, 1)
    left = client.create_run(here, tags={tags.TRAINING_KEY: key}).info.run_id
    candidate = client.create_run(here, tags={MLFLOW_PARENT_RUN_ID: left}).info.run_id
    others = client.create_run(here, tags={tags.TRAINING_KEY: "another training, which goes on"}).info.run_id
    run_id = train(TINY, data, tracking_uri, ledger_of(tracking_uri), seed=1, engine=Threads(1))
    statuses = {i: client.get_run(i).info.status for i in (left, candidate, others, run_id)}
    killed, running = RunStatus.to_string(RunStatus.KILLED), RunStatus.to_string(RunStatus.RUNNING)
    assert statuses == {left: killed, candidate: killed, others: running, run_id: "FINISHED"}


@pytest.mark.soak
def test_a_failed_training_is_repeated(tracking_uri: str, data: TrainingData) -> None:
    def no_forest(seed: int) -> Any:
        return COVERTYPE.families[0].build(seed).set_params(criterion="no such thing")

    grid = TINY.families[0].space
    broken = replaced(families=(Family("random_forest", no_forest, grid),))
    with pytest.raises(ValueError, match="criterion"):
        train(broken, data, tracking_uri, ledger_of(tracking_uri), seed=1, engine=Threads(1))
    failed = runs(tracking_uri)
    assert [run.info.status for run in failed] == ["FAILED", "FAILED"]
    assert train(TINY, data, tracking_uri, ledger_of(tracking_uri), seed=1, engine=Threads(1)) not in {
        run.info.run_id for run in failed
    }


def test_autologging_is_off_after_the_training(whole_search: Run, searched_uri: str) -> None:
    from sklearn.tree import DecisionTreeClassifier

    before = len(runs(searched_uri))
    DecisionTreeClassifier().fit([[0], [1]], [0, 1])
    assert len(runs(searched_uri)) == before


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2])
def test_the_seed_decides_the_forest(seed: int, tracking_uri: str, data: TrainingData) -> None:
    run = family_run(
        tracking_uri, train(TINY, data, tracking_uri, ledger_of(tracking_uri), seed=seed, engine=Threads(1))
    )
    model = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model")
    assert model.named_steps["classifier"].random_state == seed


@pytest.mark.soak
def test_the_same_rows_and_seed_give_the_same_models(
    data: TrainingData, empty_mlflow: Path, bare_environment: None, tmp_path: Path
) -> None:
    """The second training uses another store and number of cores; another seed gives another model."""
    digests = []
    for number, (seed, jobs) in enumerate(((1, 2), (1, 1), (2, 2))):
        uri = empty_store(empty_mlflow, tmp_path, str(number))
        made = train(EACH_FAMILY, data, uri, ledger_of(uri), seed=seed, engine=Threads(jobs))
        of = {family.name: family_run(uri, made, family.name) for family in EACH_FAMILY.families}
        digests.append({name: run.data.tags[tags.MODEL_DIGEST] for name, run in of.items()})
    first, again, other = digests
    assert first == again
    mlflow.set_tracking_uri(uri)
    for name, run in of.items():
        assert other[name] != first[name]
        folder = MlflowClient(uri).download_artifacts(run.info.run_id, "model", str(tmp_path))
        assert digest(bundle.read_estimator(Path(folder))) == other[name]
    mlflow.set_tracking_uri(None)


@pytest.mark.soak
def test_recorded_params_and_metrics_equal_those_of_autologging(
    whole_search: Run, searched_uri: str, data: TrainingData, empty_mlflow: Path, tmp_path: Path
) -> None:
    """The reference is scikit-learn's search on the same rows, recorded by MLflow's autologging."""
    part = data.table[~hashing.is_held_out(COVERTYPE, data.table)]
    grid = {f"classifier__{name}": values for name, values in GRID.items()}
    search = model_selection.GridSearchCV(
        pipeline(COVERTYPE, COVERTYPE.families[0].build(1)),
        grid,
        scoring="accuracy",
        cv=3,
        n_jobs=2,
        error_score="raise",
    )
    tracking_uri = empty_store(empty_mlflow, tmp_path)
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_experiment(COVERTYPE.experiment)
    mlflow.sklearn.autolog(log_models=False, log_datasets=False, max_tuning_runs=None, silent=True)
    try:
        with mlflow.start_run() as started, joblib.parallel_config(backend="threading"):
            search.fit(frames.canonical(COVERTYPE, part), part["Cover_Type"].to_numpy())
    finally:
        mlflow.sklearn.autolog(disable=True, silent=True)
    theirs = MlflowClient(tracking_uri).get_run(started.info.run_id)

    assert whole_search.data.params == theirs.data.params
    assert theirs.data.metrics.keys() <= whole_search.data.metrics.keys()
    for name, value in theirs.data.metrics.items():
        assert whole_search.data.metrics[name] == pytest.approx(value, abs=1e-12), name
    assert whole_search.data.tags["estimator_name"] == theirs.data.tags["estimator_name"] == "GridSearchCV"
    artifacts = [
        {file.path for file in MlflowClient(uri).list_artifacts(run.info.run_id)}
        for uri, run in ((tracking_uri, theirs), (searched_uri, whole_search))
    ]
    assert artifacts[0] <= artifacts[1]

    client = MlflowClient(tracking_uri)
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{theirs.info.run_id}'"
    their_children = client.search_runs([theirs.info.experiment_id], query)
    searched = {
        tuple(run.data.params[n] for n in grid): run.data for run in children(searched_uri, whole_search.info.run_id)
    }
    assert len(their_children) == len(searched) == 27
    for child in their_children:
        ours = searched[tuple(child.data.params[n] for n in grid)]
        assert child.data.params.items() <= ours.params.items()
        for name in ("estimator_name", "estimator_class"):
            assert ours.tags[name] == child.data.tags[name]
        meaningless = {"mean_fit_time", "std_fit_time"} if ours.params["n_estimators"] != "80" else set()
        assert child.data.metrics.keys() - ours.metrics.keys() == meaningless
        for name in ("mean_test_score", "std_test_score", "rank_test_score"):
            assert ours.metrics[name] == child.data.metrics[name]
    table = [
        pd.read_csv(MlflowClient(uri).download_artifacts(run.info.run_id, "cv_results.csv", str(tmp_path)))
        for uri, run in ((tracking_uri, theirs), (searched_uri, whole_search))
    ]
    assert sorted(table[0].columns) == sorted(table[1].columns)
    scores = [name for name in table[0].columns if "test_score" in name]
    pd.testing.assert_frame_equal(table[0][scores], table[1][scores])


@pytest.mark.parametrize(
    ("table", "counted"),
    [
        (lambda t: t[:0], "0 of 0 classes to train on and 0 held out"),
        (lambda t: t[~hashing.is_held_out(COVERTYPE, t)], "and 0 held out"),
        (lambda t: t[hashing.is_held_out(COVERTYPE, t)], "0 of 0 classes to train on"),
        (lambda t: t[t["Cover_Type"] == 1], "of 1 classes"),
        (
            lambda t: pd.concat([t[~hashing.is_held_out(COVERTYPE, t)].drop_duplicates("Cover_Type"), t[-9:]]).pipe(
                few_training_rows
            ),
            "",
        ),
    ],
    ids=["none", "none held out", "none to train on", "one class", "fewer of each class than folds"],
)
def test_too_few_rows_are_refused_before_a_run_is_created(
    table: Callable[[pd.DataFrame], pd.DataFrame], counted: str, tracking_uri: str, data: TrainingData
) -> None:
    few = table(data.table)
    with pytest.raises(TrainingError, match=f"covertype: too few rows: .*{counted}.*; ingest more batches first"):
        train(
            TINY,
            TrainingData(few, hashing.row_keys(COVERTYPE, few), ()),
            tracking_uri,
            ledger_of(tracking_uri),
            seed=1,
            engine=Threads(1),
        )
    assert runs(tracking_uri) == []


def few_training_rows(table: pd.DataFrame) -> pd.DataFrame:
    """At most two training rows per class, and all test rows."""
    held_out = hashing.is_held_out(COVERTYPE, table)
    return pd.concat([table[~held_out].groupby("Cover_Type").head(2), table[held_out]])


def test_categories_are_encoded_as_declared_even_if_rows_lack_some(data: TrainingData) -> None:
    one_area = data.table[data.table["Wilderness_Area"] == "Rawah"]
    fitted = pipeline(COVERTYPE, COVERTYPE.families[0].build(0))[:-1].fit(frames.canonical(COVERTYPE, one_area))
    width = fitted.transform(frames.frame(COVERTYPE, [COVERTYPE.example])).shape[1]
    assert width == 10 + sum(len(category.choices) for category in COVERTYPE.categories)
    assert np.isfinite(fitted.transform(frames.canonical(COVERTYPE, data.table))).all()


def test_the_families_of_the_tests_have_increasing_accuracy(world: World) -> None:
    scores = [world.client.get_run(world.runs[name]).data.metrics["holdout_accuracy"] for name in FAMILIES]
    assert scores == sorted(set(scores))
