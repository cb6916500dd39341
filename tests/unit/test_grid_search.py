"""dosel's grid search: scikit-learn's results, and a callback for each candidate."""

from typing import Any

import numpy as np
import pytest
from sklearn import model_selection
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from dosel.training.candidates import ScoredCandidate
from dosel.training.grid_search import GridSearchCV

GRID = {
    "classifier__max_depth": [1, 2, 3],
    "classifier__min_samples_split": [2, 40],
    "classifier__criterion": ["gini"],
}
X, Y = make_classification(300, 6, n_informative=4, n_classes=3, random_state=0)


def searched(kind: type[Any], callback: Any = None, **settings: Any) -> Any:
    model = Pipeline([("scale", StandardScaler()), ("classifier", DecisionTreeClassifier(random_state=0))])
    search = kind(model, GRID, **{"cv": 3, "scoring": "accuracy", "error_score": "raise"} | settings)
    if callback is not None:
        search.on_candidate = callback
    return search.fit(X, Y)


@pytest.fixture(scope="module")
def reference() -> Any:
    return searched(model_selection.GridSearchCV)


@pytest.mark.parametrize("jobs", [None, 1, 2, 4, 100])
def test_candidates_scores_and_choice_equal_those_of_scikit_learn(jobs: int | None, reference: Any) -> None:
    import joblib

    with joblib.parallel_config(backend="threading"):
        ours = searched(GridSearchCV, n_jobs=jobs)
    assert ours.cv_results_["params"] == reference.cv_results_["params"]
    assert set(ours.cv_results_) == set(reference.cv_results_)
    for name, expected in reference.cv_results_.items():
        if "score" in name and "time" not in name:
            np.testing.assert_array_equal(ours.cv_results_[name], expected, name)
    assert (ours.best_index_, ours.best_params_) == (reference.best_index_, reference.best_params_)
    assert (ours.predict(X) == reference.predict(X)).all()


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_callback_gets_each_candidate_once_and_in_order(jobs: int, reference: Any) -> None:
    import joblib

    seen: list[ScoredCandidate] = []
    with joblib.parallel_config(backend="threading"):
        searched(GridSearchCV, seen.append, n_jobs=jobs)
    scores = reference.cv_results_["mean_test_score"]
    assert [(s.number, s.of) for s in seen] == [(i, 6) for i in range(1, 7)]
    assert [s.score for s in seen] == scores.tolist()
    assert [s.best for s in seen] == np.maximum.accumulate(scores).tolist()
    assert [s.params for s in seen] == [
        {name.removeprefix("classifier__"): value for name, value in params.items()}
        for params in reference.cv_results_["params"]
    ]
    assert [s.metrics["split2_test_score"] for s in seen] == reference.cv_results_["split2_test_score"].tolist()
    assert set(seen[0].metrics) == {
        *(f"{figure}_{what}" for figure in ("mean", "std") for what in ("fit_time", "score_time", "test_score")),
        *(f"split{i}_test_score" for i in range(3)),
    }


def test_callback_is_called_during_the_search() -> None:
    class EnoughSeen(Exception):
        pass

    seen: list[int] = []

    def watch(scored: ScoredCandidate) -> None:
        seen.append(scored.number)
        if len(seen) == 2:
            raise EnoughSeen

    with pytest.raises(EnoughSeen):
        searched(GridSearchCV, watch, n_jobs=1)
    assert seen == [1, 2]


def test_search_works_without_a_callback_and_can_be_cloned() -> None:
    search = searched(GridSearchCV)
    assert clone(search).get_params()["param_grid"] == GRID
