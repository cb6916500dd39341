"""A fitted classifier in ONNX Runtime, which walks a forest of 80 trees in ten microseconds."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]


class Compiled:
    """A classifier over encoded rows, from its ONNX form.

    One thread: a row is done before a second one has woken up, and workers are how more cores are used.
    """

    def __init__(self, onnx: bytes) -> None:
        # It would report what it does, and number this machine in a file of the user's home, from its import on.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.onnx = onnx
        self._session = InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._outputs = [self._session.get_outputs()[1].name]

    def probabilities(self, encoded: Float32s) -> Float32s:
        """Of shape (rows, classes), the classes in the estimator's order."""
        [found] = self._session.run(self._outputs, {self._input: encoded})
        result: Float32s = found
        return result

    def thresholds(self) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
        """Each encoded column that trees split on, with the thresholds; none for models without trees."""
        from onnx import load_from_string

        for node in load_from_string(self.onnx).graph.node:
            attributes = {a.name: a for a in node.attribute}
            if "nodes_featureids" not in attributes:
                continue
            splits = np.array([mode != b"LEAF" for mode in attributes["nodes_modes"].strings])
            columns = np.array(attributes["nodes_featureids"].ints)[splits]
            values = np.array(attributes["nodes_values"].floats, dtype=np.float64)[splits]
            for column in np.unique(columns):
                yield int(column), np.unique(values[columns == column])


def compiled(estimator: Any, width: int) -> Compiled:
    """Converts a fitted classifier over `width` encoded columns.

    Raises:
        Exception: skl2onnx knows no such estimator, or fails on it in any of its ways.
    """
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    model = convert_sklearn(
        estimator, initial_types=[("rows", FloatTensorType([None, width]))], options={id(estimator): {"zipmap": False}}
    )
    return Compiled(model.SerializeToString())
