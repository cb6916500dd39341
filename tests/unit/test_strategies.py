"""Search strategies change the cost of a search and never a score."""

import multiprocessing
import threading
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn import model_selection
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from dosel.training.candidates import ScoredCandidate
from dosel.training.grid_search import GridSearchCV
from dosel.training.strategies import Each, ForestPrefixes, strategy
from dosel.usecases import StrategyName

X, Y = make_classification(240, 5, n_informative=4, n_redundant=0, n_classes=3, random_state=0)
X[:, 0] = X[:, 0].round()
GRID: dict[str, list[Any]] = {
    "classifier__n_estimators": [3, 8, 5],
    "classifier__max_depth": [2, 4, 6],
    "classifier__min_samples_split": [2, 5, 10],
}


def pipeline(model: Any, sparse: bool = False) -> Pipeline:
    encode = OneHotEncoder(handle_unknown="ignore", sparse_output=sparse)
    steps = [("encode", encode, [0]), ("scale", StandardScaler(), [1, 2, 3, 4])]
    return Pipeline([("preprocess", ColumnTransformer(steps, sparse_threshold=1.0)), ("classifier", model)])


def searched(
    kind: type[Any], model: Any, grid: Any, how: StrategyName = "each", callback: Any = None, jobs: int = 1
) -> Any:
    search = kind(model, grid, cv=3, scoring="accuracy", n_jobs=jobs, error_score="raise")
    if kind is GridSearchCV:
        search.strategy, search.on_candidate = how, callback
    with joblib.parallel_config(backend="threading"):
        return search.fit(X, Y)


@pytest.mark.soak
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("forest", [RandomForestClassifier, ExtraTreesClassifier])
def test_fitting_nine_forests_gives_the_scores_of_all_27_candidates(forest: type[Any], sparse: bool) -> None:
    model = pipeline(forest(random_state=7), sparse)
    reference = searched(model_selection.GridSearchCV, model, GRID)
    fits: list[int] = []
    grown = ForestPrefixes.fitted

    def counting(self: Any, *given: Any) -> Any:
        fits.append(1)
        return grown(self, *given)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ForestPrefixes, "fitted", counting)
        ours = searched(GridSearchCV, model, GRID, "forest_prefixes", jobs=2)
    assert len(fits) == 9 * 3
    assert set(ours.cv_results_) == set(reference.cv_results_)
    assert ours.cv_results_["params"] == reference.cv_results_["params"]
    for name, expected in reference.cv_results_.items():
        if "test_score" in name:
            np.testing.assert_array_equal(ours.cv_results_[name], expected, name)
    assert (ours.best_index_, ours.best_score_) == (reference.best_index_, reference.best_score_)
    assert ours.best_estimator_.get_params(deep=False).keys() == reference.best_estimator_.get_params(deep=False).keys()
    assert ours.best_estimator_[-1].get_params() == reference.best_estimator_[-1].get_params()
    np.testing.assert_array_equal(ours.predict_proba(X), reference.predict_proba(X))


def test_candidates_from_a_prefix_of_a_forest_have_no_fit_time() -> None:
    seen: list[ScoredCandidate] = []
    ours = searched(
        GridSearchCV, pipeline(RandomForestClassifier(random_state=7)), GRID, "forest_prefixes", seen.append
    )
    whole = [params["classifier__n_estimators"] == 8 for params in ours.cv_results_["params"]]
    for name in ("mean_fit_time", "std_fit_time"):
        assert np.isfinite(ours.cv_results_[name]).tolist() == whole
        assert [name in scored.metrics for scored in sorted(seen, key=lambda s: s.number)] == whole
    assert np.isfinite(ours.cv_results_["mean_score_time"]).all()


def test_the_callback_gets_candidates_group_by_group() -> None:
    """Candidates arrive in the order of the groups, since the number of trees is not the grid's last parameter."""
    grid = {"classifier__n_estimators": [3, 8], "classifier__warm_start": [False], "classifier__max_depth": [2, 4]}
    grid["classifier__verbose"] = [0, 0]
    seen: list[ScoredCandidate] = []
    ours = searched(
        GridSearchCV, pipeline(RandomForestClassifier(random_state=7)), grid, "forest_prefixes", seen.append
    )
    assert [scored.done for scored in seen] == list(range(1, 9))
    assert sorted(scored.number for scored in seen) == list(range(1, 9))
    scores = ours.cv_results_["mean_test_score"]
    assert all(scored.score == scores[scored.number - 1] for scored in seen)
    assert [scored.best for scored in seen] == np.maximum.accumulate([scored.score for scored in seen]).tolist()


@pytest.mark.parametrize(
    ("model", "params"),
    [
        (KNeighborsClassifier(), {"n_neighbors": 3}),
        (RandomForestClassifier(), {"n_estimators": 3}),
        (RandomForestClassifier(random_state=np.random.RandomState(1)), {"n_estimators": 3}),
        (RandomForestClassifier(random_state=1), {"n_estimators": 3, "random_state": None}),
        (RandomForestClassifier(random_state=1, warm_start=True), {"n_estimators": 3}),
        (RandomForestClassifier(random_state=1, oob_score=True), {"n_estimators": 3}),
        (RandomForestClassifier(random_state=1), {"n_estimators": 0}),
    ],
    ids=["no forest", "no seed", "a generator", "no seed in the grid", "warm start", "out of bag", "no trees"],
)
def test_only_seeded_forests_share_fits(model: Any, params: dict[str, Any]) -> None:
    assert isinstance(strategy("forest_prefixes", model, [params]), Each)


def test_shared_preprocessing_gives_the_scores_of_scikit_learn() -> None:
    model, grid = pipeline(KNeighborsClassifier()), {"classifier__n_neighbors": [1, 5, 9]}
    reference = searched(model_selection.GridSearchCV, model, grid)
    fitted: list[int] = []
    fit_transform = ColumnTransformer.fit_transform

    def counting(self: Any, *given: Any, **named: Any) -> Any:
        fitted.append(1)
        return fit_transform(self, *given, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ColumnTransformer, "fit_transform", counting)
        ours = searched(GridSearchCV, model, grid, "forest_prefixes")
    assert len(fitted) == 3 + 1
    for name in ("mean_test_score", "std_test_score", "rank_test_score"):
        np.testing.assert_array_equal(ours.cv_results_[name], reference.cv_results_[name])
    assert np.isfinite(ours.cv_results_["mean_fit_time"]).all()


class NeedsTwoThreads(KNeighborsClassifier):  # type: ignore[misc]
    """A classifier that predicts only while another thread predicts, so that a single thread would time out."""

    barrier = threading.Barrier(2)

    def predict(self, X: Any) -> Any:
        self.barrier.wait(timeout=30)
        return super().predict(X)


def _search_in_two_threads() -> None:
    searched(GridSearchCV, pipeline(NeedsTwoThreads()), {"classifier__n_neighbors": [1, 3, 5, 7]}, jobs=2)


def test_a_daemonic_process_searches_in_several_threads() -> None:
    process = multiprocessing.get_context("fork").Process(target=_search_in_two_threads, daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == 0
