"""Addresses of the other services' pages, for people: in messages, on the page and at a terminal."""

from dosel.settings import Settings

MACHINE_LEARNING = "workflowType=machine_learning"
"""Opens MLflow's view for machine learning; by default, MLflow opens the one for GenAI, which shows no runs."""

EXPERIMENTS = f"/#/experiments?{MACHINE_LEARNING}"
"""MLflow's list of experiments, below its address."""


def in_mlflow(settings: Settings, place: str = "experiments") -> str:
    """A page of MLflow, such as `models/NAME/versions/3`."""
    return f"{settings.mlflow_url.rstrip('/')}/#/{place}?{MACHINE_LEARNING}"


def trainings_in_mlflow(settings: Settings, experiment_id: str, view: str = "") -> str:
    """The runs of an experiment in MLflow: from its list of experiments, a click would lead to the view for GenAI.

    Args:
        view: the name of a view that the experiment has. For any other name, MLflow opens the view for GenAI.
    """
    page = in_mlflow(settings, f"experiments/{experiment_id}/runs")
    return f"{page}&viewStateShareKey={view}" if view else page


def run_in_mlflow(settings: Settings, experiment_id: str, run_id: str) -> str:
    """A run in MLflow."""
    return in_mlflow(settings, f"experiments/{experiment_id}/runs/{run_id}")


def in_airflow(settings: Settings, place: str) -> str:
    """A page of Airflow, such as `dags/NAME`."""
    return f"{settings.airflow_url.rstrip('/')}/{place}"
