"""The code that trained a model is named by its source; a declaration, by what its columns mean."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dosel
from dosel.model.fingerprint import code_version, declaration, declaration_changes
from dosel.usecases import UseCase
from dosel.usecases.penguins import PENGUINS


def test_any_line_of_the_source_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    """Penguins with another feature at a place."""
    features = list(PENGUINS.features)
    features[place] = replace(features[place], **parts)
    return replace(PENGUINS, features=tuple(features))


ISLAND = PENGUINS.categories[0]


@pytest.mark.parametrize(
    ("use_case", "words"),
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
def test_a_change_of_meaning_is_named(use_case: UseCase, words: str) -> None:
    then = json.loads(json.dumps(declaration(PENGUINS)))
    assert words in declaration_changes(then, declaration(use_case))
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


def test_mere_text_is_no_change_of_meaning() -> None:
    other = changed(1, title="Beak", help="How long it is.", example=40.0, aliases=("beak",))
    assert declaration_changes(declaration(PENGUINS), declaration(other)) == ""
