"""The page of a use case's trainings in MLflow, with figures if the experiment has dosel's view."""

import httpx

from dosel.addresses import trainings_in_mlflow
from dosel.model.tags import VIEW
from dosel.settings import Settings


def trainings_page(settings: Settings, experiment_id: str, transport: httpx.BaseTransport | None = None) -> str:
    """The address of an experiment's runs; with dosel's view only if the experiment has it.

    An experiment of an older dosel has the view from its next training on.

    Args:
        transport: for tests.
    """
    try:
        with httpx.Client(base_url=settings.tracking_uri, transport=transport, timeout=5) as client:
            found = client.get("/api/2.0/mlflow/experiments/get", params={"experiment_id": experiment_id})
            tags = found.raise_for_status().json()["experiment"].get("tags", [])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError):
        tags = []
    has_view = any(tag["key"] == VIEW for tag in tags)
    return trainings_in_mlflow(settings, experiment_id, VIEW.rpartition(".")[2] if has_view else "")
