"""The digest of the code that fits models, and the meaning of the columns that a model is fitted to."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
