"""Names for what a fitted model is, the same wherever and whenever it was fitted, and for the code that fitted it.

The file of a model cannot be that name: it holds the time of its writing and addresses in memory.
"""

import hashlib
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.neighbors import BallTree, KDTree
from sklearn.tree._tree import Tree

import dosel


def code_version() -> str:
    """dosel's version and a digest of its source, of which the declarations are a part: one line more is another."""
    root, state = Path(dosel.__file__).parent, hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        state.update(f"{file.relative_to(root).as_posix()}\n".encode() + file.read_bytes())
    return f"{dosel.__version__}+{state.hexdigest()[:12]}"


def digest(model: Any) -> str:
    """SHA-256 of an estimator's class, parameters and everything it learned; 64 hexadecimal digits."""
    state = hashlib.sha256()
    for part in _parts(model):
        # With its length, so that where one part ends is part of it.
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
            # By field: between the fields of a node lie bytes that nobody set.
            nodes = value.__getstate__()["nodes"]
            for name in nodes.dtype.names:
                yield from _parts(nodes[name])
            yield from _parts(value.value)
        case KDTree() | BallTree():
            # What it learned: where each row lies. What follows is room for counting, never cleared.
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
        case BaseEstimator():
            yield from _parts(vars(value))
        case _:
            yield pickle.dumps(value, protocol=5)
