"""The link to a use case's trainings in MLflow."""

from typing import Any

import httpx
import pytest

from dosel.embedded.trainings_page import trainings_page
from dosel.settings import Settings

PLAIN = "http://mlflow.example/#/experiments/7/runs?workflowType=machine_learning"


@pytest.mark.parametrize(
    ("status", "answer", "address"),
    [
        pytest.param(
            200,
            {"experiment": {"tags": [{"key": "mlflow.sharedViewState.dosel", "value": "{}"}]}},
            f"{PLAIN}&viewStateShareKey=dosel",
            id="with figures",
        ),
        pytest.param(200, {"experiment": {"tags": [{"key": "other", "value": ""}]}}, PLAIN, id="of an older dosel"),
        pytest.param(200, {"experiment": {}}, PLAIN, id="without tags"),
        pytest.param(500, {}, PLAIN, id="MLflow fails"),
    ],
)
def test_the_link_names_dosels_view_only_if_the_experiment_has_it(status: int, answer: Any, address: str) -> None:
    def mlflow(request: httpx.Request) -> httpx.Response:
        assert request.url.params["experiment_id"] == "7"
        return httpx.Response(status, json=answer)

    settings = Settings(tracking_uri="http://127.0.0.1:5000", mlflow_url="http://mlflow.example")
    assert trainings_page(settings, "7", httpx.MockTransport(mlflow)) == address


def test_the_link_needs_no_server() -> None:
    settings = Settings(tracking_uri="sqlite:///mlflow.db", mlflow_url="http://mlflow.example")
    assert trainings_page(settings, "7") == PLAIN
