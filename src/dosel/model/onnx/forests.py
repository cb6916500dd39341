"""Converts scikit-learn's forests to the ONNX model that skl2onnx writes, but from whole arrays.

skl2onnx handles every node in Python, and a forest of deep trees has millions of nodes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

OPSET_ML, IR_VERSION = 3, 8
_INNER, _LEAF = b"BRANCH_LEQ", b"LEAF"


class NotAForest(Exception):
    """The model cannot be converted; the message names the reason."""


def from_forest(estimator: Any, width: int) -> bytes:
    """A fitted forest of classification trees, or one such tree, as ONNX over float32 rows of `width` columns.

    Raises:
        NotAForest: it answers more than one target.
    """
    from onnx import TensorProto
    from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

    if estimator.n_outputs_ != 1:
        raise NotAForest(f"{type(estimator).__name__} of {estimator.n_outputs_} targets")
    trees = [tree.tree_ for tree in getattr(estimator, "estimators_", [estimator])]
    counts = [tree.node_count for tree in trees]
    tree_ids = np.repeat(np.arange(len(trees)), counts)
    node_ids = np.concatenate([np.arange(count) for count in counts])
    is_leaf = np.concatenate([tree.children_left < 0 for tree in trees])
    shares = np.concatenate([tree.value[:, 0, :] for tree in trees])[is_leaf]
    shares = shares / shares.sum(axis=1, keepdims=True)
    count = shares.shape[1]
    # With two classes, ONNX Runtime derives a class without weights from the other one; so both get weights.
    leaves, classes = np.nonzero(shares if count > 2 else np.ones_like(shares))
    node = make_node(
        "TreeEnsembleClassifier",
        ["rows"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        post_transform="NONE",
        classlabels_int64s=list(range(count)),
        nodes_treeids=tree_ids.tolist(),
        nodes_nodeids=node_ids.tolist(),
        nodes_featureids=_inner(is_leaf, np.concatenate([tree.feature for tree in trees])),
        nodes_values=_inner(is_leaf, _at_most(np.concatenate([tree.threshold for tree in trees]))),
        nodes_modes=np.where(is_leaf, _LEAF, _INNER).tolist(),
        nodes_truenodeids=_inner(is_leaf, np.concatenate([tree.children_left for tree in trees])),
        nodes_falsenodeids=_inner(is_leaf, np.concatenate([tree.children_right for tree in trees])),
        class_treeids=tree_ids[is_leaf][leaves].tolist(),
        class_nodeids=node_ids[is_leaf][leaves].tolist(),
        class_ids=classes.tolist(),
        class_weights=(shares[leaves, classes] / len(trees)).tolist(),
    )
    given = make_tensor_value_info("rows", TensorProto.FLOAT, [None, width])
    label = make_tensor_value_info("label", TensorProto.INT64, [None])
    made = make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, count])
    graph = make_graph([node], "forest", [given], [label, made])
    opsets = [make_opsetid("", 15), make_opsetid("ai.onnx.ml", OPSET_ML)]
    return bytes(make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString())


def _inner(is_leaf: npt.NDArray[np.bool_], values: npt.NDArray[Any]) -> list[Any]:
    found: list[Any] = np.where(is_leaf, 0, values).tolist()
    return found


def _at_most(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The largest float32 not above each threshold: the same float32 rows compare as "at most" it."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded).astype(np.float32)
