"""Converts boosted trees of LightGBM and XGBoost to ONNX, in the precision that each library computes in.

The usual converters write thresholds and leaves as float32, but LightGBM compares and sums in float64: rows next to a
threshold would take the other branch and probabilities would differ by more than 1e-6. This module uses ONNX's float64
trees (`TreeEnsemble` of ai.onnx.ml 5). XGBoost computes in float32; its leaves are summed in XGBoost's order.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any

import numpy as np

Ints = Sequence[int]
Floats = Sequence[float]

OPSET, OPSET_ML, IR_VERSION = 21, 5, 10
LIGHTGBM_ZERO = float(np.float32(1e-35))
_SUM = 1
_AT_MOST, _BELOW = 0, 1
"""The test for the true branch: the value is at most the threshold, or below it."""


class NotConvertible(Exception):
    """The model cannot be converted; the message names the reason."""


@dataclass
class _Trees:
    """Nodes and leaves of one class's trees, in the arrays of ONNX's `TreeEnsemble`.

    One ensemble per class is twice as fast in batches as one for all classes, whose nodes exceed a core's cache.
    """

    features: list[int] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    children: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    are_leaves: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    weights: list[float] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)

    def add(self, features: Ints, splits: Floats, left: Ints, right: Ints, weights: Floats) -> None:
        """Add a tree. A negative child is the leaf `-1 - child`; a row whose test holds goes left."""
        nodes, leaves = len(self.features), len(self.weights)
        self.roots.append(nodes)
        self.weights += weights
        if not features:
            # A tree without splits: both branches lead to its only leaf.
            features, splits, left, right = [0], [0.0], [-1], [-1]
        self.features += features
        self.splits += splits
        for side, found in enumerate((left, right)):
            self.children[side].extend(nodes + child if child >= 0 else leaves - 1 - child for child in found)
            self.are_leaves[side].extend(int(child < 0) for child in found)

    def node(self, test: int, dtype: Any, into: str) -> Any:
        from onnx.helper import make_node
        from onnx.numpy_helper import from_array

        (left, right), (left_is_leaf, right_is_leaf) = self.children, self.are_leaves
        return make_node(
            "TreeEnsemble",
            ["rows"],
            [into],
            domain="ai.onnx.ml",
            aggregate_function=_SUM,
            post_transform=0,
            n_targets=1,
            tree_roots=self.roots,
            nodes_featureids=self.features,
            nodes_splits=from_array(np.array(self.splits, dtype)),
            nodes_modes=from_array(np.full(len(self.splits), test, np.uint8)),
            nodes_truenodeids=left,
            nodes_trueleafs=left_is_leaf,
            nodes_falsenodeids=right,
            nodes_falseleafs=right_is_leaf,
            leaf_targetids=[0] * len(self.weights),
            leaf_weights=from_array(np.array(self.weights, dtype)),
        )


def from_lightgbm(estimator: Any, width: int) -> bytes:
    """An `LGBMClassifier` as ONNX over float64 rows of `width` columns.

    Source of the format: https://lightgbm.readthedocs.io/en/stable/pythonapi/lightgbm.Booster.html, `model_to_string`.

    Raises:
        NotConvertible: it was not fitted to a softmax or a sigmoid, or splits on categories or missing values.
    """
    head, *blocks = estimator.booster_.model_to_string().split("\nTree=")
    general = _entries(head)
    objective, *settings = general["objective"].split()
    if objective not in ("multiclass", "binary") or "average_output" in head:
        raise NotConvertible(f"LightGBM's objective {objective}")
    if "is_linear=1" in "\n".join(blocks):
        raise NotConvertible("LightGBM's linear trees")
    per_round = int(general["num_tree_per_iteration"])
    trees = [_Trees() for _ in range(per_round)]
    for number, block in enumerate(blocks):
        tree = _entries(block)
        kinds = np.array(tree.get("decision_type", "").split(), dtype=int)
        if (kinds & 0b1).any() or (kinds >> 2 & 0b11 == 1).any():
            raise NotConvertible("LightGBM's splits on categories, or with zero as a missing value")
        trees[number % per_round].add(
            [int(v) for v in tree.get("split_feature", "").split()],
            [_compared_with(float(v)) for v in tree.get("threshold", "").split()],
            [int(v) for v in tree.get("left_child", "").split()],
            [int(v) for v in tree.get("right_child", "").split()],
            [float(v) for v in tree["leaf_value"].split()],
        )
    slope = next((float(s.removeprefix("sigmoid:")) for s in settings if s.startswith("sigmoid:")), 1.0)
    return _classifier(trees, _AT_MOST, np.float64, width, slope)


def _compared_with(threshold: float) -> float:
    # LightGBM takes values this close to zero for zero, which is above the next lower threshold.
    return float(np.nextafter(threshold, -np.inf)) if threshold == -LIGHTGBM_ZERO else threshold


def from_xgboost(estimator: Any, width: int) -> bytes:
    """An `XGBClassifier` as ONNX over float32 rows of `width` columns.

    Source of the format: https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html.

    Raises:
        NotConvertible: it is no sum of trees for a softmax or a logistic function, or splits on categories.
    """
    learner = json.loads(estimator.get_booster().save_raw("json"))["learner"]
    objective = learner["objective"]["name"]
    if learner["gradient_booster"]["name"] != "gbtree" or objective not in ("multi:softprob", "binary:logistic"):
        raise NotConvertible(f"XGBoost's {learner['gradient_booster']['name']} for {objective}")
    model = learner["gradient_booster"]["model"]
    best = getattr(estimator, "best_iteration", None) if "best_iteration" in learner["attributes"] else None
    outputs = max(1, int(learner["learner_model_param"]["num_class"]))
    trees = [_Trees() for _ in range(outputs)]
    # The base score is the first tree of each class, since XGBoost adds it first.
    bases = _bases(learner["learner_model_param"]["base_score"], objective, outputs)
    for of_class, base in zip(trees, bases, strict=True):
        of_class.add([], [], [], [], [base])
    used = model["trees"] if best is None else model["trees"][: (best + 1) * outputs]
    for tree, target in zip(used, model["tree_info"], strict=False):
        if any(tree["split_type"]):
            raise NotConvertible("XGBoost's splits on categories")
        _add_xgboost(trees[target], tree)
    return _classifier(trees, _BELOW, np.float32, width, 1.0)


def _bases(written: str, objective: str, outputs: int) -> Iterator[float]:
    scores = [float(text) for text in written.strip("[]").split(",")]
    for score in scores if len(scores) == outputs else scores * outputs:
        yield -log(1 / score - 1) if objective == "binary:logistic" else score


def _add_xgboost(trees: _Trees, tree: Any) -> None:
    left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
    splits, is_leaf = np.array(tree["split_conditions"], np.float32), left < 0
    # XGBoost numbers leaves and inner nodes together; `_Trees` numbers them separately.
    places = np.where(is_leaf, 0 - np.cumsum(is_leaf), np.cumsum(~is_leaf) - 1)
    trees.add(
        np.array(tree["split_indices"])[~is_leaf].tolist(),
        splits[~is_leaf].tolist(),
        places[left[~is_leaf]].tolist(),
        places[right[~is_leaf]].tolist(),
        splits[is_leaf].tolist(),
    )


def _classifier(trees: Sequence[_Trees], test: int, dtype: Any, width: int, slope: float) -> bytes:
    """The whole model, `rows` to `probabilities`: the sum of each class's trees, then softmax or sigmoid."""
    from onnx.helper import (
        make_graph,
        make_model,
        make_node,
        make_opsetid,
        make_tensor_value_info,
    )
    from onnx.helper import (
        np_dtype_to_tensor_dtype as kind_of,
    )
    from onnx.numpy_helper import from_array

    sums = [f"sum{i}" for i in range(len(trees))]
    nodes = [of_class.node(test, dtype, into) for of_class, into in zip(trees, sums, strict=True)]
    constants = []
    if len(trees) > 1:
        nodes.append(make_node("Concat", sums, ["scores"], axis=1))
        nodes.append(make_node("Softmax", ["scores"], ["probabilities"], axis=1))
    else:
        constants = [from_array(np.array(slope, dtype), "slope"), from_array(np.array(1, dtype), "one")]
        nodes += [
            make_node("Mul", [*sums, "slope"], ["steep"]),
            make_node("Sigmoid", ["steep"], ["second"]),
            make_node("Sub", ["one", "second"], ["first"]),
            make_node("Concat", ["first", "second"], ["probabilities"], axis=1),
        ]
    given = make_tensor_value_info("rows", kind_of(np.dtype(dtype)), [None, width])
    made = make_tensor_value_info("probabilities", kind_of(np.dtype(dtype)), [None, max(len(trees), 2)])
    graph = make_graph(nodes, "boosted trees", [given], [made], constants)
    opsets = [make_opsetid("", OPSET), make_opsetid("ai.onnx.ml", OPSET_ML)]
    return bytes(make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString())


def _entries(block: str) -> dict[str, str]:
    lines = (line.partition("=") for line in block.splitlines())
    return {name: value for name, equals, value in lines if equals}
