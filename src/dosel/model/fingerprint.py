"""Digests of a fitted model, of the code that fitted it, and the meaning of the columns that it was fitted to.

Equal models have equal digests, on any machine.

The digest of a model's file would not do: the file contains its writing time and memory addresses.
"""

import hashlib
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.calibration import _CalibratedClassifier
from sklearn.neighbors import BallTree, KDTree
from sklearn.tree._tree import Tree

import dosel
from dosel.usecases import Category, Feature, UseCase


def code_version() -> str:
    """dosel's version and a digest of its source, declarations included."""
    root, state = Path(dosel.__file__).parent, hashlib.sha256()
    for file in source_files():
        state.update(f"{file.relative_to(root).as_posix()}\n".encode() + file.read_bytes())
    return f"{dosel.__version__}+{state.hexdigest()[:12]}"


def source_files() -> list[Path]:
    """The files of dosel's source, sorted."""
    return sorted(Path(dosel.__file__).parent.rglob("*.py"))


def declaration(use_case: UseCase) -> dict[str, dict[str, Any]]:
    """What decides the meaning of a row and of an answer, by column, as JSON values.

    It leaves out what only people read (titles, help, examples), other names of a column, and how sources spell the
    target: a change of these leaves a model's answers right.
    """
    target = use_case.target
    answers = {str(code): label for code, label in target.labels.items()}
    bins = target.bins and [target.bins.minimum, target.bins.maximum, *target.bins.at]
    return {
        **{feature.name: _meaning(feature) for feature in use_case.features},
        target.name: {"kind": "target", "labels": answers, "bins": bins, "revision": target.revision},
    }


def declaration_changes(then: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> str:
    """Describe how the declaration `now` differs in meaning from `then`; empty if a model of `then` is still right."""
    changes = [f"{name} was declared" for name in then.keys() - now.keys()]
    changes += [f"{name} was not declared" for name in now.keys() - then.keys()]
    for name in then.keys() & now.keys():
        before, after = then[name], now[name]
        for part in sorted(before.keys() | after.keys()):
            if part == "spellings":
                # A spelling that was added or removed changes no row that both declarations accept.
                moved = before[part].keys() & after.get(part, {}).keys()
                changes += [
                    f"{name}: {word!r} meant {before[part][word]}, now means {after[part][word]}"
                    for word in moved
                    if before[part][word] != after[part][word]
                ]
            elif before.get(part) != after.get(part):
                changes.append(f"{name}: {part} was {before.get(part)!r}, is {after.get(part)!r}")
    return "; ".join(sorted(changes))


def _meaning(feature: Feature) -> dict[str, Any]:
    common = {"optional": feature.optional, "revision": feature.revision}
    if isinstance(feature, Category):
        return {"kind": "category", "choices": sorted(feature.values), "spellings": dict(feature.spellings), **common}
    bounds = {"minimum": feature.minimum, "maximum": feature.maximum, "integer": feature.integer}
    return {"kind": "number", "unit": feature.unit, **bounds, **common}


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
