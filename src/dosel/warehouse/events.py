"""Events: what a person should know. Each is written in the same transaction as what happened.

The table is the outbox of the messages: `dosel.monitor.delivery` sends what was not delivered yet.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import Connection, Engine, RowMapping, insert, select

from dosel.db.engine import reading, transaction
from dosel.db.migrations import migrate
from dosel.db.tables import DELIVERIES, EVENTS
from dosel.db.types import fitting

Kind = Literal[
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

URGENT: frozenset[Kind] = frozenset({"harmed", "task failed"})
"""Kinds whose messages wait for no quiet hours and no digest."""


_NAME = r"[A-Za-z][\w-]*"
_COMMAND = re.compile(
    rf"dosel (?:batches|health|history|rollback|train|versions) {_NAME}|dosel compare {_NAME} \d+ \d+"
    rf'|dosel promote {_NAME} \d+ --reason "…"|dosel shadow stop {_NAME} --reason "…"'
    "|dosel shadow|dosel shadow --ended|dosel events|dosel verify"
    "|make status|make logs SERVICE=airflow-scheduler"
)
"""The commands that dosel proposes. Events are in no ledger: anybody who can write to the data store can have one say
anything, and a person must not be brought to run it."""

_INSTEAD = "dosel verify"


@dataclass(frozen=True)
class Event:
    """An event that a person should know about.

    Attributes:
        incident: names what happened; a second event of the same incident is not written.
        what: one sentence without a full stop.
        evidence: the figures or reasons behind it.
        command: the command to run.
        place: the page to look at: "page", "mlflow", or "airflow", with a path after it, such as "page/health".
        since: when it began; by default when the event is written.
    """

    incident: str
    use_case: str
    kind: Kind
    what: str
    evidence: str
    command: str
    place: str = "page"
    since: datetime | None = None


@dataclass(frozen=True)
class Attempt:
    """How far the delivery of an event to one target is."""

    target: str
    attempts: int
    delivered_at: datetime | None
    last_error: str | None
    next_at: datetime

    @property
    def failed(self) -> bool:
        """Whether the event waits after a failure."""
        return self.delivered_at is None

    @property
    def in_words(self) -> str:
        """The target, and when it accepted the event, or since when and why not."""
        if self.delivered_at is not None:
            return f"{self.target}: {self.delivered_at:%H:%M:%S}"
        tries = f"{self.attempts} {'attempt' if self.attempts == 1 else 'attempts'}"
        return f"{self.target}: waits until {self.next_at:%H:%M:%S} UTC after {tries}: {self.last_error or ''}"


@dataclass(frozen=True)
class StoredEvent:
    """An event as it was written, and its deliveries."""

    id: int
    incident: str
    use_case: str
    kind: Kind
    at: datetime
    since: datetime
    what: str
    evidence: str
    command: str
    place: str
    deliveries: tuple[Attempt, ...] = ()


def add(connection: Connection, event: Event) -> bool:
    """Write an event in the caller's transaction; return False if its incident has one already."""
    now = datetime.now(UTC)
    texts = {name: fitting(value) for name, value in asdict(event).items() if isinstance(value, str)}
    moments = {"at": _stored(now), "since": _stored(event.since or now)}
    cut = {name: texts[name][:size] for name, size in (("incident", 255), ("use_case", 64), ("place", 255))}
    # Every value fits its column, so that IGNORE passes over nothing but a second event of the incident.
    statement = insert(EVENTS).prefix_with("OR IGNORE", dialect="sqlite").prefix_with("IGNORE", dialect="mysql")
    return connection.execute(statement.values(texts | cut | moments)).rowcount == 1


class EventStore:
    """Writes events that have no other transaction, and reads events. Every call may raise WarehouseError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        migrate(engine)

    def add(self, event: Event) -> bool:
        """Write an event; return False if its incident has one already."""
        with transaction(self._engine) as connection:
            return add(connection, event)

    def has(self, incident: str) -> bool:
        """Whether an incident has an event."""
        with reading(self._engine) as connection:
            return connection.execute(select(EVENTS.c.id).where(EVENTS.c.incident == incident)).first() is not None

    def newest(self, limit: int, use_case: str | None = None, before: int | None = None) -> list[StoredEvent]:
        """Events with their deliveries, newest first.

        Args:
            use_case: only events of this one.
            before: only events with a lower id, to continue a list.
        """
        query = select(EVENTS).order_by(EVENTS.c.id.desc()).limit(limit)
        if use_case is not None:
            query = query.where(EVENTS.c.use_case == use_case)
        if before is not None:
            query = query.where(EVENTS.c.id < before)
        with reading(self._engine) as connection:
            rows = connection.execute(query).mappings().all()
            tried = _deliveries(connection, [row["id"] for row in rows])
            return [stored_event(row, tried.get(row["id"], ())) for row in rows]


def stored_event(row: RowMapping, deliveries: Sequence[Attempt] = ()) -> StoredEvent:
    """The event of a row of the table."""
    names = [field.name for field in fields(StoredEvent) if field.name != "deliveries"]
    moments = {name: row[name].replace(tzinfo=UTC) for name in ("at", "since")}
    command = row["command"] if _COMMAND.fullmatch(row["command"]) else _INSTEAD
    return StoredEvent(
        **{name: row[name] for name in names} | moments | {"command": command}, deliveries=tuple(deliveries)
    )


def _deliveries(connection: Connection, ids: Sequence[int]) -> dict[int, list[Attempt]]:
    found: dict[int, list[Attempt]] = {}
    query = select(DELIVERIES).where(DELIVERIES.c.event_id.in_(ids)).order_by(DELIVERIES.c.target)
    for row in connection.execute(query):
        delivered = row.delivered_at and row.delivered_at.replace(tzinfo=UTC)
        tried = Attempt(row.target, row.attempts, delivered, row.last_error, row.next_at.replace(tzinfo=UTC))
        found.setdefault(row.event_id, []).append(tried)
    return found


def _stored(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
