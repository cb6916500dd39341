"""A declaration that cannot be read: the other use cases run, and `dosel check` and the API say so."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ASK = """
import json
from fastapi.testclient import TestClient
from app.main import create_app
from dosel.settings import Settings
from dosel.usecases import named
from dosel.errors import UnknownUseCase

client = TestClient(create_app(Settings(home="home", tracking_uri="sqlite:///mlflow.db")))
bare = client.post("/predict", json={"Elevation": 2000})
try:
    named("covertype")
except UnknownUseCase as error:
    unknown = str(error)
print(json.dumps({
    "bare": [bare.status_code, bare.json()["detail"]],
    "named": client.post("/predict/covertype", json={}).json()["detail"],
    "others": [use_case["name"] for use_case in client.get("/use-cases").json()["use_cases"]],
    "info": client.get("/model-info").status_code,
    "documented": sorted(path for path in client.get("/openapi.json").json()["paths"] if path.startswith("/predict")),
    "unknown": unknown,
}))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of an installation whose default use case has an invalid file."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "src" / "dosel" / "usecases" / "covertype.py"
    file.write_text(file.read_text().replace("COVERTYPE = UseCase(", "COVERTYPE = UseCase(("))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOSEL_", "MLFLOW_", "AIRFLOW"))}
    return kept | {"PYTHONPATH": f"{tmp_path / 'src'}:{ROOT}", "MLFLOW_DISABLE_TELEMETRY": "true"}


def run(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_check_names_the_refused_file_and_the_use_cases_that_run(tmp_path: Path, environment: dict[str, str]) -> None:
    done = run(tmp_path, environment, "-m", "dosel", "check")
    assert done.returncode == 1, done.stderr
    file, problem, running, default = done.stdout.splitlines()
    assert file == "src/dosel/usecases/covertype.py:"
    assert problem.startswith("  line ")
    assert running == "use cases that run: employees, penguins"
    assert default == "no use case is the default: POST /predict answers 503"


@pytest.mark.soak
def test_predict_without_a_default_use_case_is_refused_with_the_reason(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    done = run(tmp_path, environment, "-c", ASK)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    status, detail = answers["bare"]
    assert status == 503
    assert "no use case is the default" in detail
    assert "these paths answer: /predict/employees, /predict/penguins" in detail
    assert answers["named"] == "no use case 'covertype'; there are: employees, penguins"
    assert answers["others"] == ["employees", "penguins"]
    assert answers["info"] == 404
    assert "/predict" not in answers["documented"]
    assert "/predict/penguins" in answers["documented"]
    assert answers["unknown"] == (
        "no use case 'covertype'; there are: employees, penguins. Refused: src/dosel/usecases/covertype.py "
        "(`dosel check` says why)"
    )


def test_the_dags_of_the_other_use_cases_exist(tmp_path: Path, environment: dict[str, str]) -> None:
    airflow = {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path / 'airflow.db'}",
    }
    code = (
        "from airflow.dag_processing.dagbag import DagBag\n"
        f"bag = DagBag({str(ROOT / 'dags')!r})\n"
        "print(sorted(bag.dags), bag.import_errors)"
    )
    done = run(tmp_path, environment | airflow, "-c", code)
    assert done.returncode == 0, done.stderr
    wanted = [
        "dosel_ledgers",
        "dosel_messages",
        "dosel_retention",
        "employees_ingest",
        "employees_train",
        "penguins_ingest",
        "penguins_train",
    ]
    assert done.stdout.splitlines()[-1] == f"{wanted} {{}}"
