"""Explanations against references: scikit-learn's neighbours, Shapley's formula and the model's output."""

from dataclasses import replace
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier

from app.schemas.explanations import explained as answer
from app.schemas.explanations import explanation_model
from dosel.errors import NotExplainable
from dosel.explain import Contributions, Explainer, Explanation, lightgbm_forests
from dosel.explain.columns import owners
from dosel.explain.sampling import sampled
from dosel.model import reference
from dosel.model.predictor import Predictor
from dosel.rows import frames
from dosel.training.preprocessing import pipeline
from dosel.usecases import ALL, Family, UseCase
from dosel.usecases.covertype import COVERTYPE
from tests.unit.test_predictor import Own, given, table

BUDGET = 0.1
ROWS = 400
FEATURES = len(COVERTYPE.features)


def classes(features: pd.DataFrame) -> Any:
    """Classes from 1 without a gap, as XGBoost requires."""
    return 1 + (features["Elevation"].to_numpy() // 300 + features["Slope"].to_numpy() // 30).astype(int) % 4


def explainer(classifier: Any, tmp_path: Path, seen: pd.DataFrame | None = None) -> Explainer:
    features = table(ROWS, seed=1) if seen is None else seen
    model = pipeline(COVERTYPE, classifier).fit(features, classes(features))
    content = reference.write(COVERTYPE, features, classes(features), tmp_path).read_bytes()
    return Explainer(Predictor(COVERTYPE, model), content)


def explained(made: Explainer, neighbours: int = 5) -> Explanation:
    return made.explain(COVERTYPE.example, neighbours, BUDGET)


def row_of(features: pd.DataFrame, place: int) -> dict[str, Any]:
    return given(features.iloc[[place]])[0]


def contributions(made: Explainer) -> Contributions:
    found = explained(made).contributions
    assert found
    return found


@pytest.fixture(scope="module")
def tree_explainer(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    """An explainer for tests that do not depend on the model."""
    return explainer(DecisionTreeClassifier(random_state=0), tmp_path_factory.mktemp("tree"))


def space_of(features: pd.DataFrame) -> Any:
    return pipeline(COVERTYPE, DecisionTreeClassifier()).fit(features, classes(features))[:-1]


EXACT = {
    "forest": RandomForestClassifier(10, max_depth=6, random_state=0),
    "weighted forest": RandomForestClassifier(10, max_depth=6, class_weight="balanced_subsample", random_state=0),
    "extra trees": ExtraTreesClassifier(10, random_state=0),
    "tree": DecisionTreeClassifier(random_state=0),
}


def check_sum(found: Explanation, use_case: UseCase = COVERTYPE) -> None:
    """The parts of an explanation add up to the probability that the answer shows, to its decimals."""
    accuracy = max(1e-5, 10**-use_case.decimals)
    parts = found.contributions
    assert parts
    shown = found.prediction.probabilities[found.prediction.label]
    assert parts.base + sum(c.contribution for c in parts.features) == pytest.approx(shown, abs=accuracy)
    assert parts.output == pytest.approx(shown, abs=accuracy)


@pytest.mark.parametrize("name", EXACT)
def test_exact_contributions_add_up_to_the_probability(name: str, tmp_path: Path) -> None:
    found = explained(explainer(EXACT[name], tmp_path))
    check_sum(found)
    parts = found.contributions
    assert parts
    assert (parts.exact, parts.method, parts.draws) == (True, "TreeSHAP", None)
    assert {c.feature for c in parts.features} == set(COVERTYPE.feature_names)
    sizes = [abs(c.contribution) for c in parts.features]
    assert sizes == sorted(sizes, reverse=True)


def random_rows(use_case: UseCase, count: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {
        n.name: rng.uniform(n.minimum, n.maximum, count).round(0 if n.integer else 1) for n in use_case.numbers
    }
    columns |= {c.name: rng.choice(c.values, count) for c in use_case.categories}
    return frames.canonical(use_case, pd.DataFrame(columns))


@pytest.mark.parametrize(
    ("use_case", "family"),
    [(use_case, family) for use_case in ALL for family in use_case.families],
    ids=lambda part: part.name,
)
@pytest.mark.parametrize("classes", [2, None], ids=["two classes", "all classes"])
def test_contributions_add_up_to_the_shown_probability_for_every_declared_family(
    use_case: UseCase, family: Family, classes: int | None, tmp_path: Path
) -> None:
    features = random_rows(use_case, 300)
    codes = np.array(list(use_case.target.labels)[:classes])
    truth = codes[np.arange(len(features)) % len(codes)]
    model = pipeline(use_case, family.build(0)).fit(features, truth)
    content = reference.write(use_case, features, truth, tmp_path).read_bytes()
    check_sum(Explainer(Predictor(use_case, model), content).explain(use_case.example, 5, BUDGET), use_case)


@pytest.mark.parametrize(
    "classifier",
    [GradientBoostingClassifier(n_estimators=2, random_state=0), KNeighborsClassifier(4), Own()],
    ids=lambda c: type(c).__name__,
)
def test_sampled_contributions_are_marked_and_sum_to_the_output(classifier: Any, tmp_path: Path) -> None:
    found = explained(explainer(classifier, tmp_path))
    parts = found.contributions
    assert parts
    assert not parts.exact
    assert parts.draws
    assert all(c.error is not None and c.error >= 0 for c in parts.features)
    check_sum(found)


def shapley(value: Any, players: int) -> list[float]:
    """Shapley values by their formula: the weighted mean change over all coalitions."""
    found = []
    for player in range(players):
        others = [p for p in range(players) if p != player]
        gains = (
            (value({*some, player}) - value(set(some))) / (players * comb(players - 1, size))
            for size in range(players)
            for some in combinations(others, size)
        )
        found.append(sum(gains))
    return found


def mean_tree_output(tree: Any, node: int, row: Any, known: set[int], place: int) -> float:
    """The mean output of a tree when only some columns are known, as TreeSHAP defines it."""
    left, right = tree.children_left[node], tree.children_right[node]
    if left == -1:
        return float(tree.value[node, 0, place])
    if tree.feature[node] in known:
        return mean_tree_output(
            tree, left if row[tree.feature[node]] <= tree.threshold[node] else right, row, known, place
        )
    weight = tree.weighted_n_node_samples
    parts = [weight[child] / weight[node] * mean_tree_output(tree, child, row, known, place) for child in (left, right)]
    return float(sum(parts))


@pytest.mark.parametrize("weights", [None, "balanced"])
def test_a_forest_converted_to_lightgbm_has_exact_shapley_values(weights: str | None) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0.3).astype(int) + (x[:, 3] > 1)
    forest = RandomForestClassifier(4, max_depth=5, class_weight=weights, random_state=0).fit(x, y)
    trees = lightgbm_forests.trees_of(forest)
    assert trees
    for place in range(3):
        booster = lightgbm_forests.booster(trees, place)
        assert booster.predict(x) == pytest.approx(forest.predict_proba(x)[:, place], abs=1e-12)
        for row in x[:3]:
            [found] = booster.predict(row[np.newaxis].astype(np.float64), pred_contrib=True)
            expected = np.mean(
                [shapley(lambda s, t=t: mean_tree_output(t, 0, row, s, place), 5) for t in trees],  # noqa: B023
                axis=0,
            )
            assert found[:-1] == pytest.approx(expected, abs=1e-7)


def test_a_tree_without_a_split_contributes_nothing() -> None:
    x, y = np.zeros((10, 2)), np.array([0, 1] * 5)
    trees = lightgbm_forests.trees_of(RandomForestClassifier(2, bootstrap=False).fit(x, y))
    assert trees
    assert lightgbm_forests.booster(trees, 1).predict(x[:1], pred_contrib=True)[0] == pytest.approx([0, 0, 0.5])


def test_contributions_of_a_large_forest_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forest = RandomForestClassifier(10, max_depth=6, random_state=0)
    assert contributions(explainer(forest, tmp_path)).exact
    monkeypatch.setattr(lightgbm_forests, "MOST_STEPS", 10)
    assert not contributions(explainer(forest, tmp_path)).exact


def test_sampled_values_are_within_their_standard_errors_of_the_exact_values() -> None:
    """The function has interacting features, and is averaged over the background rows."""
    rng = np.random.default_rng(0)
    background, row = rng.normal(size=(40, 4)), np.array([1.0, -2.0, 0.5, 3.0])

    def output(x: Any) -> Any:
        return x[:, 0] * x[:, 1] + np.where(x[:, 2] > 0, x[:, 3], 0)

    def value(known: set[int]) -> float:
        return float(output(np.where(np.isin(np.arange(4), list(known)), row, background)).mean())

    found = sampled(output, row, background, seconds=5)
    assert found.pairs == 4096
    assert (np.abs(found.values - shapley(value, 4)) < 4 * found.errors + 1e-9).all()
    assert found.base + found.values.sum() == pytest.approx(output(row[np.newaxis])[0])


def test_sampling_stops_at_the_time_budget() -> None:
    asked = 0

    def output(x: Any) -> Any:
        nonlocal asked
        asked += 1
        return x.sum(axis=1)

    assert sampled(output, np.ones(3), np.zeros((5, 3)), seconds=0).pairs == 2
    assert asked == 2


def closed_explainer(tmp_path: Path, rows: int, seed: int = 1) -> Explainer:
    """An explainer of a closed use case whose model has no exact contributions."""
    closed, features = replace(COVERTYPE, expose_training_rows=False), table(rows, seed=seed)
    model = pipeline(closed, GradientBoostingClassifier(n_estimators=2, random_state=0)).fit(
        features, classes(features)
    )
    content = reference.write(closed, features, classes(features), tmp_path).read_bytes()
    return Explainer(Predictor(closed, model), content)


@pytest.mark.parametrize("budget", [0, 0.05])
def test_contributions_of_a_closed_use_case_rest_on_blocks_of_100_rows(tmp_path: Path, budget: float) -> None:
    """With two rows, each contribution and its error give the two rows' values: somebody who makes the API slow would
    read them."""
    parts = closed_explainer(tmp_path, ROWS).explain(COVERTYPE.example, 5, budget).contributions
    assert parts
    assert parts.draws
    assert parts.draws % 200 == 0
    assert parts.output == pytest.approx(parts.base + sum(c.contribution for c in parts.features))


def test_a_closed_use_case_with_few_training_rows_has_no_sampled_contributions(tmp_path: Path) -> None:
    assert closed_explainer(tmp_path, 99).explain(COVERTYPE.example, 5, BUDGET).contributions is None
    assert closed_explainer(tmp_path, 100).explain(COVERTYPE.example, 5, BUDGET).contributions


def test_contributions_start_with_the_same_rows_in_every_process_but_with_others_for_other_training_rows(
    tmp_path: Path,
) -> None:
    def base(seed: int) -> float:
        parts = closed_explainer(tmp_path, ROWS, seed).explain(COVERTYPE.example, 5, 0).contributions
        assert parts
        return parts.base

    assert base(1) == pytest.approx(base(1), abs=1e-6)
    seeds = {closed_explainer(tmp_path, ROWS, seed)._contributor._seed for seed in (1, 2)}
    assert len(seeds) == 2
    assert seeds.isdisjoint({0})


def test_all_figures_of_sampled_contributions_of_a_closed_use_case_have_three_decimals(tmp_path: Path) -> None:
    closed = replace(COVERTYPE, expose_training_rows=False)
    found = closed_explainer(tmp_path, ROWS).explain(COVERTYPE.example, 5, 0)
    version = {"name": "a model", "version": 1, "run_id": "0"}
    shown: Any = answer(explanation_model(closed), closed, version, COVERTYPE.example, found)  # type: ignore[arg-type]
    parts = shown.contributions
    figures = [parts.base, parts.output, *(f for c in parts.features for f in (c.contribution, c.error))]
    assert len(figures) == 2 + 2 * FEATURES
    assert figures == [round(figure, 3) for figure in figures]
    assert any(c.error for c in parts.features)


def test_a_block_is_sampled_in_parts_that_fit_the_memory() -> None:
    widest = 0

    def output(x: Any) -> Any:
        nonlocal widest
        widest = max(widest, len(x))
        return x.sum(axis=1)

    found = sampled(output, np.ones(500), np.zeros((100, 500)), seconds=0, block=100)
    assert found.pairs == 100
    assert widest <= 20_000


@pytest.mark.parametrize("count", [1, 7, ROWS, ROWS + 10])
def test_neighbours_equal_those_of_scikit_learn(tree_explainer: Explainer, count: int) -> None:
    features = table(ROWS, seed=1)
    preprocess = space_of(features)
    space = preprocess.transform(features)
    row = preprocess.transform(frames.frame(COVERTYPE, [COVERTYPE.example]))
    [distances], [places] = NearestNeighbors(n_neighbors=min(count, ROWS)).fit(space).kneighbors(row)
    found = explained(tree_explainer, count)
    assert [n.place for n in found.neighbours] == list(places)
    assert [n.distance for n in found.neighbours] == pytest.approx(distances, abs=1e-6)
    assert [n.point.code for n in found.neighbours] == list(classes(features)[places])
    expected = features.iloc[places].to_dict("records")
    assert [dict(row) for row in found.rows] == expected


def test_a_training_row_is_its_own_nearest_neighbour_and_equal_rows_keep_their_order(tmp_path: Path) -> None:
    features = table(ROWS, seed=1)
    twins = pd.concat([features, features.iloc[[17, 17]]], ignore_index=True)
    made = explainer(DecisionTreeClassifier(random_state=0), tmp_path, twins)
    found = made.explain(row_of(features, 17), 4, BUDGET)
    assert [n.place for n in found.neighbours][:3] == [17, ROWS, ROWS + 1]
    assert [n.distance for n in found.neighbours][:3] == [0, 0, 0]
    assert found.neighbours[3].distance > 0


def test_the_projection_equals_scikit_learns_pca(tree_explainer: Explainer) -> None:
    features = table(ROWS, seed=1)
    space = space_of(features).transform(features)
    pca = PCA(2).fit(space)
    found = tree_explainer.explain(row_of(features, 3), 1, BUDGET)
    expected = pca.transform(space)
    signs = np.sign(expected[3] * found.projection.row)
    assert found.projection.row == pytest.approx(signs * expected[3], abs=2e-4)
    assert found.projection.explained == pytest.approx(pca.explained_variance_ratio_, abs=1e-5)
    assert len(found.projection.sample) == ROWS
    # A training row is its own neighbour, at its own place in the picture.
    [itself] = found.neighbours
    assert (itself.point.x, itself.point.y) == found.projection.row


def test_owners_finds_the_feature_of_each_encoded_column() -> None:
    features = table(ROWS, seed=1)
    model = pipeline(COVERTYPE, DecisionTreeClassifier()).fit(features, classes(features))
    found = owners(Predictor(COVERTYPE, model))
    assert found is not None
    names = [name.split("__")[1] for name in model[:-1].get_feature_names_out()]
    assert all(name.startswith(COVERTYPE.feature_names[owner]) for name, owner in zip(names, found, strict=True))
    assert set(found) == set(range(FEATURES))


class Mixed(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A transformer that adds every column to the first."""

    def fit(self, x: Any, y: Any = None) -> "Mixed":
        self.fitted_ = True
        return self

    def transform(self, x: Any) -> Any:
        return np.column_stack([np.asarray(x).sum(axis=1), np.asarray(x)[:, 1:]])


def test_contributions_are_sampled_where_columns_mix_features(tmp_path: Path) -> None:
    features = table(ROWS, seed=1)
    plain = pipeline(COVERTYPE, RandomForestClassifier(5, max_depth=4, random_state=0))
    model = Pipeline([*plain.steps[:-1], ("mixed", Mixed()), plain.steps[-1]]).fit(features, classes(features))
    assert owners(Predictor(COVERTYPE, model)) is None
    content = reference.write(COVERTYPE, features, classes(features), tmp_path).read_bytes()
    assert not contributions(Explainer(Predictor(COVERTYPE, model), content)).exact


def test_exact_contributions_that_do_not_sum_to_the_output_are_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = explainer(RandomForestClassifier(5, max_depth=4, random_state=0), tmp_path)
    other = explainer(RandomForestClassifier(5, max_depth=1, random_state=1), tmp_path)
    made._contributor._exact = other._contributor._exact
    assert not contributions(made).exact
    assert "is not used" in caplog.text


def test_training_rows_are_shown_only_if_the_declaration_allows(tmp_path: Path) -> None:
    features = table(50, seed=1)
    closed = replace(COVERTYPE, expose_training_rows=False)
    model = pipeline(closed, DecisionTreeClassifier()).fit(features, classes(features))
    content = reference.write(closed, features, classes(features), tmp_path).read_bytes()
    found = explained(Explainer(Predictor(closed, model), content))
    assert len(found.neighbours) == 5
    assert found.rows == ()


def warned(made: Explainer, **values: Any) -> dict[str | None, str]:
    found = made.explain(COVERTYPE.example | values, 5, None).warnings
    return {warning.feature: warning.message for warning in found}


@pytest.fixture(scope="module")
def narrow() -> pd.DataFrame:
    """Rows near the example: elevations from 2500 to 2699, and one soil type less than declared."""
    rng = np.random.default_rng(0)
    rows = frames.canonical(COVERTYPE, pd.DataFrame([COVERTYPE.example] * ROWS))
    rows["Elevation"] = np.tile(np.arange(2500.0, 2700.0), ROWS // 200)
    rows["Slope"] = rng.integers(0, 40, ROWS).astype(float)
    rows["Soil_Type"] = np.where(np.arange(ROWS) % 2, COVERTYPE.example["Soil_Type"], "C2702")
    return rows


@pytest.mark.parametrize("is_open", [True, False], ids=["open", "closed"])
def test_values_outside_the_training_rows_and_far_rows_are_named(
    is_open: bool, narrow: pd.DataFrame, tmp_path: Path
) -> None:
    use_case = replace(COVERTYPE, expose_training_rows=is_open)
    truth = 1 + np.arange(ROWS) % 2
    model = pipeline(use_case, DecisionTreeClassifier(random_state=0)).fit(narrow, truth)
    content = reference.write(use_case, narrow, truth, tmp_path).read_bytes()
    made = Explainer(Predictor(use_case, model), content)
    assert warned(made, Elevation=2600, Slope=5) == {}
    bounds = "training rows have 2500 to 2699 m" if is_open else "95% of the training rows have 2500 to 2700 m"
    found = warned(made, Elevation=3500, Soil_Type="C8776")
    assert found["Elevation"] == f"Elevation 3500 m: {bounds}"
    assert "training row has this value" in found["Soil_Type"]
    assert ("at distance" if is_open else "as a whole") in found[None]


def test_no_warning_of_a_closed_use_case_depends_on_one_row(narrow: pd.DataFrame, tmp_path: Path) -> None:
    """Who asks often enough finds every bound: one unusual row must not move any of them."""
    closed = replace(COVERTYPE, expose_training_rows=False)
    truth = 1 + np.arange(ROWS) % 2
    model = pipeline(closed, DecisionTreeClassifier(random_state=0)).fit(narrow, truth)
    with_one = narrow.copy()
    with_one.loc[7, "Elevation"], with_one.loc[7, "Soil_Type"] = 3871.0, "C8776"
    found = []
    for number, rows in enumerate((narrow, with_one)):
        (tmp_path / str(number)).mkdir()
        content = reference.write(closed, rows, truth, tmp_path / str(number)).read_bytes()
        made = Explainer(Predictor(closed, model), content)
        asked = ({"Elevation": elevation} for elevation in (2400, 2490, 2710, 2800, 3871))
        found.append([warned(made, **values).get("Elevation") for values in asked])
        found[-1].append(warned(made, Soil_Type="C8776").get("Soil_Type"))
    assert found[0] == found[1]


def test_reference_rows_are_unchanged_after_writing_and_reading(tmp_path: Path) -> None:
    features = table(ROWS, seed=1)
    file = reference.write(COVERTYPE, features, classes(features), tmp_path)
    found = reference.read(COVERTYPE, file.read_bytes())
    assert found.shown(np.arange(ROWS)) == features.to_dict("records")
    predictor = Predictor(COVERTYPE, pipeline(COVERTYPE, DecisionTreeClassifier()).fit(features, classes(features)))
    assert (found.matrix(np.arange(ROWS)) == predictor.matrix(given(features))).all()
    assert (found.classes == classes(features)).all()
    assert file.stat().st_size < 20_000


def test_only_a_sample_of_many_training_rows_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "MOST_ROWS", 100)
    features = table(ROWS, seed=1)
    found = reference.read(COVERTYPE, reference.write(COVERTYPE, features, classes(features), tmp_path).read_bytes())
    assert len(found) == 100


def test_reference_rows_of_another_declaration_are_refused(tmp_path: Path) -> None:
    features = table(50, seed=1)
    content = reference.write(COVERTYPE, features, classes(features), tmp_path).read_bytes()
    other = replace(COVERTYPE, features=COVERTYPE.features[1:])
    with pytest.raises(NotExplainable, match=COVERTYPE.features[0].name):
        reference.read(other, content)
