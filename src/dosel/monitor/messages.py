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
        _what_happened(event),
        f"Look: {link(event, settings)}",
        f"Type: {event.command}",
    )
    return "\n".join(lines)


def _what_happened(event: StoredEvent) -> str:
    return f"Since {event.since:%Y-%m-%d %H:%M:%S} UTC. {event.evidence.rstrip('.')}."


def title(events: Sequence[StoredEvent]) -> str:
    """The title of a message about one event or several."""
    if len(events) == 1:
        return f"dosel: {events[0].what}"
    kinds = sorted({event.kind for event in events})
    return f"dosel: {len(events)} events ({', '.join(kinds)})"


def text(events: Sequence[StoredEvent], settings: Settings) -> str:
    """The body of a message about one event or several: the newest first, with a command for each use case's newest."""
    if len(events) == 1:
        return body(events[0], settings)
    newest_first = sorted(events, key=lambda event: (event.at, event.id), reverse=True)
    parts, seen = [], set[str]()
    for event in newest_first:
        # What an earlier event proposes may be out of date.
        said = _what_happened(event) if event.use_case in seen else body(event, settings)
        seen.add(event.use_case)
        parts.append(f"{event.what}\n{said}")
    return "\n\n".join(parts)


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
