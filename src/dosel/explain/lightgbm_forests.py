"""Converts a scikit-learn tree or forest to a LightGBM booster, for LightGBM's TreeSHAP.

TreeSHAP (Lundberg, Erion and Lee 2018, algorithm 2) takes a forest's trees only as thresholds, leaves and the share of
training rows that reached each node. LightGBM has it in C++, reads such trees from text, and gives what the forest
answers; the `shap` package has it, too, and on Python 3.11 a compiler (numba) with it.
"""

from typing import Any

import numpy as np

MOST_STEPS = 30_000_000
"""Largest cost of an exact explanation: TreeSHAP's work for a row is proportional to leaves times depth squared."""

_COVER = 1_000_000_000
"""LightGBM counts rows in integers, so a node's share of the training rows is a count out of this number."""

_LEAF = -1
_NAN_RIGHT, _NAN_LEFT = 8, 10
"""Values of LightGBM's `decision_type`: the branch of a missing value."""


def trees_of(classifier: Any) -> list[Any] | None:
    """The trees of a classifier whose probabilities are the mean over its trees; None for other classifiers."""
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    match classifier:
        case RandomForestClassifier() | ExtraTreesClassifier() if classifier.n_outputs_ == 1:
            return [estimator.tree_ for estimator in classifier.estimators_]
        case DecisionTreeClassifier() if classifier.n_outputs_ == 1:
            return [classifier.tree_]
    return None


def steps(trees: list[Any]) -> int:
    """The cost of explaining one row: the sum of the leaves' squared depths."""
    return sum(int((tree.compute_node_depths()[tree.children_left == _LEAF] ** 2).sum()) for tree in trees)


def booster(trees: list[Any], chosen: int) -> Any:
    """A LightGBM booster whose raw score is the trees' mean probability of the class at place `chosen`.

    It takes float32 values, as scikit-learn's trees do.
    """
    import lightgbm

    width = int(trees[0].n_features)
    texts = [_text(number, tree, chosen, len(trees)) for number, tree in enumerate(trees)]
    header = {
        "version": "v4",
        "num_class": 1,
        "num_tree_per_iteration": 1,
        "label_index": 0,
        "max_feature_idx": width - 1,
        "objective": "regression",
        "feature_names": " ".join(f"f{i}" for i in range(width)),
        "feature_infos": " ".join(["[-inf:inf]"] * width),
        "tree_sizes": " ".join(str(len(text)) for text in texts),
    }
    return lightgbm.Booster(model_str=f"tree\n{_lines(header)}\n{''.join(texts)}end of trees\n")


def _text(number: int, tree: Any, chosen: int, of: int) -> str:
    leaf = tree.children_left == _LEAF
    inner = ~leaf
    # LightGBM numbers inner nodes and leaves separately, and writes leaves as -1, -2, …
    place = np.where(leaf, ~(np.cumsum(leaf) - 1), np.cumsum(inner) - 1)
    share = tree.weighted_n_node_samples / tree.weighted_n_node_samples[0]
    cover = np.maximum(np.rint(share * _COVER).astype(np.int64), 1)
    value = tree.value[:, 0, chosen] / of
    fields: dict[str, Any] = {
        "Tree": number,
        "num_leaves": int(leaf.sum()),
        "num_cat": 0,
        "split_feature": tree.feature[inner],
        "split_gain": np.zeros(inner.sum(), np.int8),
        "threshold": tree.threshold[inner],
        "decision_type": np.where(tree.missing_go_to_left[inner], _NAN_LEFT, _NAN_RIGHT),
        "left_child": place[tree.children_left[inner]],
        "right_child": place[tree.children_right[inner]],
        "leaf_value": value[leaf],
        "leaf_weight": cover[leaf],
        "leaf_count": cover[leaf],
        "internal_value": value[inner],
        "internal_weight": cover[inner],
        "internal_count": cover[inner],
        "is_linear": 0,
        "shrinkage": 1,
    }
    return f"{_lines(fields)}\n\n"


def _lines(fields: dict[str, Any]) -> str:
    texts = {n: " ".join(map(str, v.tolist())) if isinstance(v, np.ndarray) else str(v) for n, v in fields.items()}
    return "".join(f"{name}={text}\n" for name, text in texts.items())
