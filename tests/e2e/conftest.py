"""The embedded platform, started with `make` as a new user would, on free ports and in temporary folders."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from dosel.embedded.preflight import free_ports
from scripts import screenshots

ROOT = Path(__file__).resolve().parents[2]
PORTS = ("AIRFLOW_PORT", "MLFLOW_PORT", "API_PORT", "DATA_API_PORT", "STREAMLIT_PORT")
TRIALS = 3
"""The number of trials of each Optuna search."""


@dataclass
class Installation:
    """An embedded platform; `make` runs a target of the Makefile against it."""

    home: Path
    user_home: Path
    environment: dict[str, str]

    def make(self, *targets: str, timeout: float = 600, **settings: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["make", *targets],
            cwd=ROOT,
            env=self.environment | settings,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def started(self, *targets: str, **settings: str) -> "subprocess.Popen[str]":
        """Start `make` without waiting for it; its output can be read line by line."""
        return subprocess.Popen(
            ["make", *targets],
            cwd=ROOT,
            env=self.environment | settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def url(self, port: str) -> str:
        return f"http://127.0.0.1:{self.environment[port]}"


def installation(folder: Path) -> Installation:
    user_home = folder / "user"
    user_home.mkdir()
    ours = ("DOSEL_", "AIRFLOW", "MLFLOW_", "DATA_API_", "BATCH_", "SLICE_", "MIN_UPDATE", "API_PORT")
    # MLflow sends no telemetry when it detects CI or pytest; the tests need the behaviour on a user's machine.
    automatic = ("PYTEST_", "CI", "GITHUB_ACTIONS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours + automatic)}
    environment |= {
        "HOME": str(user_home),
        "DOSEL_HOME": str(folder / "dosel"),
        "DATA_API_FETCH": "never",
        "DOSEL_TRIALS": str(TRIALS),
        # The file of the DAGs does not change; Airflow would read it twice a minute.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
    }
    environment |= dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    return Installation(folder / "dosel", user_home, environment)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Installation]:
    """An installation that was never started."""
    made = installation(tmp_path)
    yield made
    made.make("down")


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, str]]:
    """A platform started by `make up DETACH=1`, and its output; tests share it and must not change it.

    It is stopped after these tests: while it waits, it takes a third of a core.
    """
    made = installation(tmp_path_factory.mktemp("platform"))
    try:
        result = made.make("up", "DETACH=1", DATA_API_ROWS="4000", BATCH_FRACTION="1")
        assert result.returncode == 0, result.stdout + result.stderr
        yield made, result.stdout
    finally:
        made.make("down")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if screenshots.CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium-headless-shell)")
    with screenshots.browser() as launched:
        yield launched
