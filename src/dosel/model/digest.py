"""The digest of a fitted model: equal models have equal digests, on any machine.

The digest of a model's file would not do: the file contains its writing time and memory addresses.
"""

import hashlib
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.calibration import _CalibratedClassifier
from sklearn.neighbors import BallTree, KDTree
from sklearn.tree._tree import Tree


def digest(model: Any) -> str:
    """SHA-256 of an estimator's class, parameters and fitted state; 64 hexadecimal digits."""
    state = hashlib.sha256()
    for part in _parts(model):
        # With its length, so that two different lists of parts never give the same bytes.
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    kind = type(value)
    yield f"{kind.__module__}.{kind.__qualname__}".encode()
    match value:
        case None | bool() | int() | float() | str() | slice() | np.generic():
            yield repr(value).encode()
        case Tree():
            # By field, since the bytes between a node's fields are undefined.
            nodes = value.__getstate__()["nodes"]
            for name in nodes.dtype.names:
                yield from _parts(nodes[name])
            yield from _parts(value.value)
        case KDTree() | BallTree():
            # Only the fitted arrays: what follows them is uninitialised memory for counters.
            yield from _parts([np.asarray(part) for part in value.get_arrays()])
        case np.random.RandomState():
            yield from _parts(value.get_state(legacy=False))
        case np.dtype():
            yield value.str.encode()
        case np.ndarray() if value.dtype == object:
            yield from _parts(value.tolist())
        case np.ndarray():
            yield f"{value.dtype.str} {value.shape}".encode()
            yield np.ascontiguousarray(value).tobytes()
        case Mapping():
            for name in sorted(value, key=repr):
                yield from _parts(name)
                yield from _parts(value[name])
        case set() | frozenset():
            yield from _parts(sorted(value, key=repr))
        case list() | tuple():
            for item in value:
                yield from _parts(item)
        case type():
            yield f"{value.__module__}.{value.__qualname__}".encode()
        case BaseEstimator() | _CalibratedClassifier():
            # By attribute: a pickle also depends on which parts two attributes share, which no file keeps.
            yield from _parts(vars(value))
        case _:
            yield pickle.dumps(value, protocol=5)
