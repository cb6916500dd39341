"""Events as messages: the text for people, and the JSON for programs."""

from collections.abc import Sequence
from typing import Any

from dosel.addresses import in_airflow, in_mlflow
from dosel.settings import Settings
from dosel.warehouse.events import StoredEvent


def link(event: StoredEvent, settings: Settings) -> str:
    """The address of the page to look at."""
    service, _, path = event.place.partition("/")
    if service == "mlflow":
        return in_mlflow(settings, path.removeprefix("#/"))
    return in_airflow(settings, path) if service == "airflow" else f"{settings.page_url}/{path}".rstrip("/")


def body(event: StoredEvent, settings: Settings) -> str:
    """The lines of a message: since when, the evidence, the page to look at, and the command to run."""
    lines = (
        f"Since {event.since:%Y-%m-%d %H:%M:%S} UTC. {event.evidence.rstrip('.')}.",
        f"Look: {link(event, settings)}",
        f"Type: {event.command}",
    )
    return "\n".join(lines)


def title(events: Sequence[StoredEvent]) -> str:
    """The title of a message about one event or several."""
    if len(events) == 1:
        return f"dosel: {events[0].what}"
    kinds = sorted({event.kind for event in events})
    return f"dosel: {len(events)} events ({', '.join(kinds)})"


def text(events: Sequence[StoredEvent], settings: Settings) -> str:
    """The body of a message about one event or several."""
    if len(events) == 1:
        return body(events[0], settings)
    return "\n\n".join(f"{event.what}\n{body(event, settings)}" for event in events)


def document(event: StoredEvent, settings: Settings) -> dict[str, Any]:
    """An event as JSON values."""
    return {
        "id": event.id,
        "incident": event.incident,
        "use_case": event.use_case,
        "kind": event.kind,
        "at": event.at.isoformat(),
        "since": event.since.isoformat(),
        "what": event.what,
        "evidence": event.evidence,
        "link": link(event, settings),
        "command": event.command,
    }
