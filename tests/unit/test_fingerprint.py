"""Fingerprints: the code version follows from the source, a declaration's from the meaning of its columns."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io

import dosel
from dosel.model import bundle
from dosel.model.digest import digest
from dosel.model.fingerprint import code_version, declaration, declaration_changes
from dosel.rows import frames
from dosel.training.preprocessing import pipeline
from dosel.usecases import ALL, Family, UseCase
from dosel.usecases.penguins import PENGUINS


def test_the_code_version_changes_with_any_source_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declaration = tmp_path / "usecases" / "covertype.py"
    declaration.parent.mkdir()
    monkeypatch.setattr(dosel, "__file__", str(tmp_path / "__init__.py"))
    found = []
    for line in ("floor = 0.6\n", "floor = 0.1\n", "floor = 0.6\n"):
        declaration.write_text(line)
        found.append(code_version())
    assert found[0] == found[2] != found[1]
    assert found[0].startswith(f"{dosel.__version__}+")


def changed(place: int, **parts: Any) -> UseCase:
    """The penguins declaration with another feature at this position."""
    features = list(PENGUINS.features)
    features[place] = replace(features[place], **parts)
    return replace(PENGUINS, features=tuple(features))


ISLAND = PENGUINS.categories[0]


@pytest.mark.parametrize(
    ("use_case", "message"),
    [
        (changed(1, unit="inch"), "bill_length_mm: unit was 'mm', is 'inch'"),
        (changed(1, minimum=1), "bill_length_mm: minimum was"),
        (changed(1, integer=True), "bill_length_mm: integer was False, is True"),
        (changed(1, optional=True), "bill_length_mm: optional was False, is True"),
        (changed(1, revision=2), "bill_length_mm: revision was 1, is 2"),
        (changed(0, choices=ISLAND.choices[:-1]), "island: choices was"),
        (replace(PENGUINS, features=PENGUINS.features[1:]), "island was declared"),
        (replace(PENGUINS, target=replace(PENGUINS.target, revision=3)), "revision was 1, is 3"),
    ],
    ids=["unit", "bound", "integer", "optional", "revision", "choices", "feature", "target"],
)
def test_a_change_of_a_columns_meaning_is_named(use_case: UseCase, message: str) -> None:
    then = json.loads(json.dumps(declaration(PENGUINS)))
    assert message in declaration_changes(then, declaration(use_case))
    assert declaration_changes(then, declaration(PENGUINS)) == ""


def test_a_moved_spelling_is_a_change_and_a_new_spelling_is_not() -> None:
    first, second, *others = ISLAND.choices
    before = changed(0, choices=(replace(first, aliases=("west",)), second, *others))
    moved = changed(0, choices=(first, replace(second, aliases=("west",)), *others))
    more = changed(0, choices=(replace(first, aliases=("west", "w")), second, *others))
    assert declaration_changes(declaration(before), declaration(moved)) == (
        f"island: 'west' meant {first.value}, now means {second.value}"
    )
    assert declaration_changes(declaration(before), declaration(more)) == ""


def test_changed_descriptions_are_no_change_of_meaning() -> None:
    other = changed(1, title="Beak", help="How long it is.", example=40.0, aliases=("beak",))
    assert declaration_changes(declaration(PENGUINS), declaration(other)) == ""


@pytest.mark.parametrize(
    ("use_case", "family"),
    [(use_case, family) for use_case in ALL for family in use_case.families],
    ids=lambda declared: declared.name,
)
def test_the_digest_of_a_model_equals_the_digest_of_its_file(use_case: UseCase, family: Family, tmp_path: Path) -> None:
    """Registration compares the digest of the uploaded file with the one of the model in memory."""
    random = np.random.default_rng(3)
    codes = np.array(list(use_case.target.labels))
    rows = [dict(use_case.example) for _ in range(20 * len(codes))]
    for number in use_case.numbers:
        for row in rows:
            row[number.name] = float(random.integers(np.ceil(number.minimum), np.floor(number.maximum) + 1))
    features = frames.canonical(use_case, pd.DataFrame(rows))
    model = pipeline(use_case, family.build(0)).fit(features, np.tile(codes, 20))
    skops.io.dump(model, tmp_path / "model.skops")
    assert digest(bundle.read_estimator(tmp_path)) == digest(model)
    # A model from another process shares no strings or arrays between attributes.
    assert digest(pickle.loads(pickle.dumps(model))) == digest(model)
