"""Bodies that describe events."""

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field

from dosel.closed import http_status, without_figures

if TYPE_CHECKING:
    from dosel.settings import Settings
    from dosel.warehouse.events import StoredEvent

EventKind = Literal[
    "promoted",
    "approval wanted",
    "refused",
    "shadow",
    "harmed",
    "batch refused",
    "task failed",
    "stale",
    "audit mismatch",
]


IN_THE_LOG = "the task's log has the error"
"""What is shown instead of the error of a closed use case's task."""


def _without_error(evidence: str) -> str:
    status = http_status(evidence)
    return f"{IN_THE_LOG}; a service answered with HTTP status {status}" if status else IN_THE_LOG


class EventInfo(BaseModel):
    """An event that a person should know about."""

    id: int
    incident: str = Field(description="Names what happened; each incident has one event.")
    use_case: str
    kind: EventKind
    at: datetime
    since: datetime = Field(description="When it began.")
    what: str
    evidence: str = Field(description="The figures or reasons behind it.")
    link: str = Field(description="Where to look.")
    command: str = Field(description="What to type.")
    delivered: int = Field(description="Number of receivers that accepted its message.")
    waiting: int = Field(description="Number of receivers for which every delivery has failed so far.")

    @classmethod
    def of(cls, event: "StoredEvent", settings: "Settings", is_open: bool) -> "EventInfo":
        """The event. If it is one of a closed use case (not `is_open`), its texts have no figures and no values."""
        from dosel.monitor.messages import document

        if not is_open:
            # An error's text may quote anything, for example what the data API sent.
            failed = event.kind == "task failed"
            evidence = _without_error(event.evidence) if failed else without_figures(event.evidence)
            # The incident of a refused batch has the digest of its rows.
            incident = f"{event.kind} {event.id}"
            event = replace(event, incident=incident, what=without_figures(event.what), evidence=evidence)

        delivered = sum(attempt.delivered_at is not None for attempt in event.deliveries)
        return cls(**document(event, settings), delivered=delivered, waiting=len(event.deliveries) - delivered)


class Events(BaseModel):
    """Events, newest first."""

    events: list[EventInfo]
    next_before: int | None = Field(description="`before` of the next page; null on the last one.")
