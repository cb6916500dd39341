"""Failed and interrupted starts of the platform, each in a new installation."""

import re
import socket
from typing import Any

import pytest

from dosel.usecases import ALL
from dosel.usecases.covertype import COVERTYPE
from tests.e2e.conftest import Installation
from tests.e2e.test_up import answering, assert_nothing_is_left, of_ours

pytestmark = pytest.mark.e2e


@pytest.mark.soak
def test_a_used_port_stops_the_start_with_one_line(fresh: Installation) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(fresh.environment["MLFLOW_PORT"])))
        other.listen()
        result = fresh.make("up", "DETACH=1")
    assert result.returncode != 0
    assert f"port {fresh.environment['MLFLOW_PORT']} (MLflow) is used" in result.stderr
    assert "MLFLOW_PORT=" in result.stderr
    assert of_ours(str(fresh.home)) == []


@pytest.mark.soak
def test_a_missing_csv_stops_the_start_with_one_line(fresh: Installation) -> None:
    result = fresh.make("up", "DETACH=1", DATA_API_CSV="no/such/file.csv")
    assert result.returncode != 0
    assert "no/such/file.csv" in result.stderr
    assert list((fresh.home / "run").glob("*.json")) == [], "a service was started"


def test_a_service_that_cannot_start_stops_the_platform_with_the_reason(fresh: Installation) -> None:
    elsewhere: dict[str, Any] = {"MLFLOW_TRACKING_URI": "http://mlflow.test", "DOSEL_API_URL": "http://api.test"}
    result = fresh.make("up", "DETACH=1", DATA_API_STATE_DIR="/dev/null/state", **elsewhere)
    assert result.returncode != 0
    assert "airflow-api-server" not in {file.stem for file in (fresh.home / "logs").glob("*.log")}, (
        "it started too late"
    )
    assert "/dev/null/state cannot be used" in result.stderr
    assert "data-api.log" in result.stderr
    assert of_ours(str(fresh.home)) == []


@pytest.mark.soak
def test_up_resumes_the_work_that_down_interrupted(fresh: Installation) -> None:
    """Batches from before the interruption are not pulled again."""
    settings: dict[str, Any] = {"DATA_API_ROWS": "1000", "BATCH_FRACTION": "1"}
    with fresh.started("up", **settings) as first:
        assert any(re.search(rf"{COVERTYPE.name} +batch 10", line) for line in first.stdout or ())
        assert fresh.make("down").returncode == 0
        assert first.wait(60) != 0
    assert_nothing_is_left(fresh)

    second = fresh.make("up", "DETACH=1", **settings)
    assert second.returncode == 0, second.stdout + second.stderr
    assert set(answering(second.stdout)) == {use_case.model_name for use_case in ALL}
    assert not re.search(rf"{COVERTYPE.name} +batch", second.stdout)
