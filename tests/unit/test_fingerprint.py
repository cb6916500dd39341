"""The code that trained a model is named by its source: a declaration that was edited shows."""

from pathlib import Path

import pytest

import dosel
from dosel.model.fingerprint import code_version


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
