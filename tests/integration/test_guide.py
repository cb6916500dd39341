"""A use case from the file of docs/add-a-use-case.md, or from `dosel init`, works without any other change."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "add-a-use-case.md"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a module of Python in a copy of the package."""
    shutil.copytree(ROOT / "src", tmp_path / "src")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOSEL_", "MLFLOW_", "AIRFLOW"))}
    environment = kept | {"PYTHONPATH": f"{tmp_path / 'src'}:{ROOT}", "MLFLOW_DISABLE_TELEMETRY": "true"}

    def module(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )

    return module


def works(run: Run, name: str, home: Path, mlflow: Path) -> None:
    """Check a use case from its rows to its form. `mlflow` is an empty database of MLflow, which takes long to make."""
    home.mkdir()
    shutil.copy(mlflow, home / "mlflow.db")
    result = run("tests.integration.guide", name, str(home))
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.splitlines()[-1] == "all of it works"


def test_the_file_of_the_guide_works_as_a_use_case(run: Run, tmp_path: Path, empty_mlflow: Path) -> None:
    text = GUIDE.read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    [place] = re.findall(r"Copy it to `(src/dosel/usecases/(?:\w+)\.py)`", text)
    assert not (tmp_path / place).exists()
    (tmp_path / place).write_text(code)
    works(run, Path(place).stem, tmp_path / "home", empty_mlflow)


@pytest.mark.soak
def test_a_proposal_for_a_spreadsheet_works_as_a_use_case(run: Run, tmp_path: Path, empty_mlflow: Path) -> None:
    """Penguins as a German spreadsheet writes them: ; and decimal commas, in UTF-16, with missing values."""
    text = (files("palmerpenguins") / "data/penguins.csv").read_text()
    lines = [line.split(",") for line in text.splitlines()]
    data = tmp_path / "birds.csv"
    data.write_text("".join(";".join(v.replace(".", ",") for v in line) + "\n" for line in lines), "utf-16")
    proposed = run("dosel", "init", str(data), "--target", "species")
    assert proposed.returncode == 0, proposed.stderr
    assert (tmp_path / "src/dosel/usecases/birds.py").exists()
    checked = run("dosel", "check")
    assert checked.returncode == 0, checked.stdout
    assert "birds" in checked.stdout
    works(run, "birds", tmp_path / "home", empty_mlflow)
