"""Grows the trees of scikit-learn's forests in about half of the time, for searches that fit many small ones.

scikit-learn clones and checks an estimator for each tree, which takes longer than growing a small tree and holds
Python's lock. Here the first tree is fitted by scikit-learn, and the others repeat its last step, in which the tree is
built. The names below are not in scikit-learn's public API: a test compares every tree with scikit-learn's own.
"""

from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.tree._classes import CRITERIA_CLF, DENSE_SPLITTERS, DepthFirstTreeBuilder
from sklearn.tree._tree import Tree

PLAIN = {
    "max_samples": None,
    "class_weight": None,
    "max_leaf_nodes": None,
    "monotonic_cst": None,
    "ccp_alpha": 0.0,
    "min_weight_fraction_leaf": 0.0,
    "verbose": 0,
}
"""Parameters of a forest that is grown here; scikit-learn grows one that has other values."""

ANY_DEPTH = np.iinfo(np.int32).max
SEEDS = np.iinfo(np.int32).max
"""Seeds of trees are below this."""


def grow(forest: Any, features: Any, target: Any) -> Any:
    """Fit a forest with a fixed seed; its trees are those that its own `fit` would grow.

    Args:
        features: shape (rows, columns).
        target: classes, shape (rows,).

    Returns:
        The forest itself.
    """
    if not _is_plain(forest, features, target):
        return forest.fit(features, target)
    size = forest.n_estimators
    forest.set_params(n_estimators=1).fit(features, target)
    forest.n_estimators = size
    [first] = forest.estimators_
    classes = np.searchsorted(forest.classes_, target).astype(np.float64).reshape(-1, 1)
    seeds = np.random.RandomState(forest.random_state)
    assert first.random_state == seeds.randint(SEEDS)
    for _ in range(size - 1):
        tree = copy(first)
        tree.random_state = seeds.randint(SEEDS)
        tree.tree_ = _grown(forest, tree, features, classes)
        forest.estimators_.append(tree)
    return forest


def _grown(forest: Any, tree: Any, features: Any, classes: npt.NDArray[np.float64]) -> Tree:
    """The tree that `tree.fit` would build for this forest. `classes` are places among the forest's classes."""
    rows = len(features)
    weights = None
    if forest.bootstrap:
        drawn = np.random.RandomState(tree.random_state).randint(0, rows, rows)
        weights = np.bincount(drawn, minlength=rows).astype(np.float64)
    sizes = np.array([len(forest.classes_)], dtype=np.intp)
    random, leaf = np.random.RandomState(tree.random_state), tree.min_samples_leaf
    splitter = DENSE_SPLITTERS[tree.splitter](
        CRITERIA_CLF[tree.criterion](1, sizes), tree.max_features_, leaf, 0.0, random, None
    )
    builder = DepthFirstTreeBuilder(
        splitter,
        max(tree.min_samples_split, 2 * leaf),
        leaf,
        0.0,
        ANY_DEPTH if tree.max_depth is None else tree.max_depth,
        tree.min_impurity_decrease,
    )
    made = Tree(features.shape[1], sizes, 1)
    builder.build(made, features, classes, weights, None)
    return made


def _is_plain(forest: Any, features: Any, target: Any) -> bool:
    """Whether nothing but the listed parameters and complete, dense float32 features decides the trees."""
    if type(forest) not in (RandomForestClassifier, ExtraTreesClassifier) or np.ndim(target) != 1:
        return False
    params = forest.get_params(deep=False)
    whole = all(isinstance(params[name], int) for name in ("random_state", "min_samples_split", "min_samples_leaf"))
    return (
        whole
        and isinstance(params["criterion"], str)
        and all(params[name] == value for name, value in PLAIN.items())
        and isinstance(features, np.ndarray)
        and features.dtype == np.float32
        and features.flags.c_contiguous
        and not np.isnan(features).any()
    )
