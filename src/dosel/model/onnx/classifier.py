"""Runs classifiers in ONNX Runtime, which evaluates a forest of 80 trees in ten microseconds."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from dosel.model.onnx import boosted_trees, forests
from dosel.rows.columns import Floats


class OnnxClassifier:
    """A classifier over encoded rows, as an ONNX model.

    ONNX Runtime gets one thread: one row takes less time than waking up a second thread. More workers use more cores.
    """

    def __init__(self, onnx: bytes) -> None:
        # Otherwise importing it sends telemetry and writes an identifier of this machine to the user's home.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # It raises its errors, too. A model that it cannot run is no fault, since scikit-learn then answers.
        options.log_severity_level = 4
        self.onnx = onnx
        self._session = InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        [given] = self._session.get_inputs()
        self._input = given.name
        # Some models output a label before the probabilities.
        self._outputs = [self._session.get_outputs()[-1].name]
        self.dtype = np.float64 if given.type == "tensor(double)" else np.float32
        """The type of its input."""

    def probabilities(self, encoded: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Probabilities of shape (rows, classes), in the estimator's order, for rows of type `dtype`."""
        [found] = self._session.run(self._outputs, {self._input: encoded})
        # A sum of shares in float32 can be slightly above 1.
        result: npt.NDArray[Any] = np.minimum(found, 1, out=found)
        return result

    def thresholds(self) -> Iterator[tuple[int, Floats]]:
        """The encoded columns that trees split on, with their thresholds; none for models without trees."""
        from onnx import load_from_string
        from onnx.numpy_helper import to_array

        for node in load_from_string(self.onnx).graph.node:
            attributes = {a.name: a for a in node.attribute}
            if "nodes_featureids" not in attributes:
                continue
            columns = np.array(attributes["nodes_featureids"].ints)
            if tensor := attributes.get("nodes_splits") or attributes.get("nodes_values_as_tensor"):
                values = to_array(tensor.t).astype(np.float64)
            else:
                values = np.array(attributes["nodes_values"].floats, dtype=np.float64)
            if "nodes_modes" in attributes and attributes["nodes_modes"].strings:
                splits = np.array([mode != b"LEAF" for mode in attributes["nodes_modes"].strings])
                columns, values = columns[splits], values[splits]
            for column in np.unique(columns):
                yield int(column), np.unique(values[columns == column])


_FORESTS = ("DecisionTree", "ExtraTree", "RandomForest", "ExtraTrees")


def conversions(estimator: Any, width: int) -> list[Callable[[], OnnxClassifier]]:
    """The ways to convert a fitted classifier over `width` encoded columns, the best first.

    Each raises whatever its converter raises, for an estimator that the converter does not know or fails on.
    """
    name = type(estimator).__name__
    match name:
        case "LGBMClassifier":
            return [lambda: OnnxClassifier(boosted_trees.from_lightgbm(estimator, width))]
        case "XGBClassifier":
            return [lambda: OnnxClassifier(boosted_trees.from_xgboost(estimator, width))]
        case "KNeighborsClassifier":
            # Without ONNX Runtime's own distance operator it is slower than scikit-learn.
            return [lambda: _by_skl2onnx(estimator, width, np.float64, optim="cdist")]
        case "GradientBoostingClassifier":
            # scikit-learn's trees compare in float32.
            return [lambda: _by_skl2onnx(estimator, width, np.float32)]
    if name.removesuffix("Classifier") in _FORESTS:
        return [lambda: OnnxClassifier(forests.from_forest(estimator, width))]
    return [lambda: _by_skl2onnx(estimator, width, np.float64), lambda: _by_skl2onnx(estimator, width, np.float32)]


def _by_skl2onnx(estimator: Any, width: int, dtype: Any, **options: Any) -> OnnxClassifier:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    rows = (DoubleTensorType if dtype is np.float64 else FloatTensorType)([None, width])
    model = convert_sklearn(
        estimator, initial_types=[("rows", rows)], options={id(estimator): {"zipmap": False} | options}
    )
    return OnnxClassifier(model.SerializeToString())
