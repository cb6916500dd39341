"""What a start prints at its end: the addresses, each use case's answer and the times."""

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from rich.markup import escape

from dosel.client import Client
from dosel.embedded.first_answers import FirstAnswers
from dosel.embedded.services import Service
from dosel.embedded.trainings_page import trainings_page
from dosel.errors import ServiceError
from dosel.settings import Settings

DASHBOARD_PORT = 8787
"""Dask's own default."""


def summary(
    settings: Settings, services: Sequence[Service], first: FirstAnswers, services_seconds: float
) -> Iterator[str]:
    """The lines, with rich's markup.

    Args:
        services_seconds: how long it took until all services were healthy.
    """
    # Whole lines, from which a person copies an address.
    yield ""
    for title, address in _addresses(settings, services).items():
        yield f"{title:<16} {escape(address)}"
    yield ""
    for name, answer in first.answers.items():
        model, probability = answer["model"], answer["probabilities"][answer["label"]]
        yield (
            f"[bold]{name}[/]: the example row is [bold]{answer['prediction']}, {escape(answer['label'])}[/] "
            f"(probability {probability:.2f}), by {model['name']} version {model['version']}"
        )
        if address := _trainings_of(settings, name):
            yield f"  its trainings: {escape(address)}"
    phases = {"services": services_seconds} | first.phases
    times = " · ".join(f"{phase} {seconds:.0f} s" for phase, seconds in phases.items())
    (name, passed), *others = first.answered
    later = "".join(f", {other} after {after}" for other, after in others)
    yield f"[dim]first prediction after {passed} ({name}: {times}){later}"


def _addresses(settings: Settings, services: Sequence[Service]) -> dict[str, str]:
    notes = {"Airflow": f"   user {settings.airflow_user}, password {settings.airflow_password}"}
    addresses = {service.title: service.page + notes.get(service.title, "") for service in services if service.page}
    if settings.cluster:
        dashboard = f"dashboard http://{urlsplit(settings.cluster).hostname}:{DASHBOARD_PORT}"
        addresses["Dask"] = f"{settings.cluster}   {dashboard}"
    return addresses


def _trainings_of(settings: Settings, use_case: str) -> str:
    """The address of a use case's trainings in MLflow; "" if the API does not name their experiment."""
    client = Client(settings.api_url, timeout=5, attempts=1, key=settings.own_key)
    try:
        version = client.model_info(use_case)["production"]
    except ServiceError:
        return ""
    return trainings_page(settings, version["experiment_id"])
