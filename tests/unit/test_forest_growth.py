"""Forests that are grown for a search are scikit-learn's own, tree by tree."""

from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from dosel.training import forest_growth
from dosel.training.forest_growth import grow

ROWS, CLASSES = make_classification(400, 8, n_informative=5, n_redundant=0, n_classes=4, random_state=3)
FEATURES = np.ascontiguousarray(ROWS, dtype=np.float32)
FEATURES[:, 0] = FEATURES[:, 0] > 0
WORDS = np.array(["oak", "ash", "elm", "fir"])[CLASSES]

PLAIN: dict[str, Any] = {
    "random forest": RandomForestClassifier(12, random_state=7),
    "shallow": RandomForestClassifier(12, max_depth=3, min_samples_split=10, random_state=1),
    "large leaves": RandomForestClassifier(12, min_samples_leaf=4, criterion="entropy", random_state=2),
    "few features": RandomForestClassifier(12, max_features=2, min_impurity_decrease=0.01, random_state=2),
    "no bootstrap": RandomForestClassifier(12, bootstrap=False, random_state=5),
    "extra trees": ExtraTreesClassifier(12, max_features=0.5, random_state=7),
    "one tree": RandomForestClassifier(1, random_state=0),
}
OTHERS: dict[str, Any] = {
    "weighted": RandomForestClassifier(5, class_weight="balanced", random_state=0),
    "samples": RandomForestClassifier(5, max_samples=0.5, random_state=0),
    "leaves": RandomForestClassifier(5, max_leaf_nodes=8, random_state=0),
    "pruned": RandomForestClassifier(5, ccp_alpha=0.02, random_state=0),
    "leaf weight": RandomForestClassifier(5, min_weight_fraction_leaf=0.1, random_state=0),
    "share": RandomForestClassifier(5, min_samples_split=0.1, random_state=0),
}


def assert_equal_forests(one: Any, other: Any) -> None:
    assert one.get_params() == other.get_params()
    assert one.classes_.tolist() == other.classes_.tolist()
    assert len(one.estimators_) == len(other.estimators_) == one.n_estimators
    for left, right in zip(one.estimators_, other.estimators_, strict=True):
        assert left.random_state == right.random_state
        mine, its = left.tree_.__getstate__(), right.tree_.__getstate__()
        assert mine["nodes"].tobytes() == its["nodes"].tobytes()
        np.testing.assert_array_equal(mine["values"], its["values"])
    np.testing.assert_array_equal(one.predict_proba(FEATURES), other.predict_proba(FEATURES))


@pytest.mark.parametrize("target", [CLASSES, WORDS], ids=["codes", "words"])
@pytest.mark.parametrize("name", PLAIN)
def test_the_trees_are_those_that_scikit_learn_grows(name: str, target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = Mock(wraps=forest_growth._grown)
    monkeypatch.setattr(forest_growth, "_grown", grown)
    ours = grow(clone(PLAIN[name]), FEATURES, target)
    assert grown.call_count == ours.n_estimators - 1
    assert_equal_forests(ours, clone(PLAIN[name]).fit(FEATURES, target))


@pytest.mark.parametrize("name", OTHERS)
def test_scikit_learn_grows_forests_with_other_parameters(name: str) -> None:
    assert_equal_forests(grow(clone(OTHERS[name]), FEATURES, CLASSES), clone(OTHERS[name]).fit(FEATURES, CLASSES))


def test_scikit_learn_grows_forests_on_rows_with_missing_values() -> None:
    holes = FEATURES.copy()
    holes[::7, 3] = np.nan
    forest = RandomForestClassifier(5, random_state=0)
    assert_equal_forests(grow(clone(forest), holes, CLASSES), clone(forest).fit(holes, CLASSES))
