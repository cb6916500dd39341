"""The events that wait in the outbox for a receiver of messages."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Exists, func, select

from dosel.db.tables import DELIVERIES, EVENTS, TARGETS
from dosel.warehouse.events import URGENT

NEW_TARGET = timedelta(hours=1)
"""A new target also gets the events of this time before its first delivery, and no older ones."""


@dataclass(frozen=True)
class Waiting:
    """The events that one target has not accepted yet, urgent ones or the others.

    Attributes:
        age: seconds since the oldest of them was written; 0 without events.
    """

    target: str
    urgent: bool
    events: int
    age: float


def waiting_events(connection: Connection, targets: Iterable[str], now: datetime) -> Sequence[Waiting]:
    """What waits for each target, by its name; the urgent events and the others apart."""
    found = []
    for target in targets:
        after = last_before(connection, target)
        after = newest_too_old(connection, now) if after is None else after
        urgent = EVENTS.c.kind.in_(URGENT).label("urgent")
        query = (
            select(urgent, func.count(), func.min(EVENTS.c.at))
            .where(EVENTS.c.id > after, ~delivered_to(target))
            .group_by(urgent)
        )
        groups = {bool(row[0]): (int(row[1]), row[2].replace(tzinfo=UTC)) for row in connection.execute(query)}
        for kind in (True, False):
            events, oldest = groups.get(kind, (0, now))
            found.append(Waiting(target, kind, events, max((now - oldest).total_seconds(), 0.0)))
    return found


def delivered_to(target: str) -> Exists:
    """The condition that an event was delivered to a target."""
    return (
        select(DELIVERIES.c.event_id)
        .where(
            DELIVERIES.c.event_id == EVENTS.c.id,
            DELIVERIES.c.target == target,
            DELIVERIES.c.delivered_at.is_not(None),
        )
        .exists()
    )


def last_before(connection: Connection, target: str) -> int | None:
    """The id of the last event that a target does not get, since it is older; None before the first delivery."""
    known = connection.scalar(select(TARGETS.c.after_event).where(TARGETS.c.target == target))
    return None if known is None else int(known)


def newest_too_old(connection: Connection, now: datetime) -> int:
    """The id of the last event that a target would not get if its first delivery was now."""
    old = EVENTS.c.at < (now - NEW_TARGET).replace(tzinfo=None)
    return connection.scalar(select(func.max(EVENTS.c.id)).where(old)) or 0
