"""Delivers events to the configured targets, at least once: an event is marked only after the target has accepted it.

One process delivers at a time. Killed between a request and its mark, the request is repeated by the next delivery.
"""

import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day

from sqlalchemy import ColumnElement, Connection, Engine, insert, select, update

from dosel.db.engine import transaction
from dosel.db.locks import hold
from dosel.db.migrations import migrate
from dosel.db.tables import DELIVERIES, EVENTS, TARGETS
from dosel.errors import DeliveryError, DoselError, LockTaken
from dosel.monitor import outbox
from dosel.monitor.targets import Target, targets_of
from dosel.settings import Settings
from dosel.warehouse.events import URGENT, StoredEvent, stored_event

BUDGET_SECONDS = 20.0
"""Time limit of a delivery; a request that has begun by then is still finished."""

CHUNK = 100
"""Events that are read at once, and the most in one message."""

FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=30), timedelta(hours=1)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivered:
    """The result of a delivery: how many events were delivered, and how many receivers failed."""

    sent: int = 0
    failed: int = 0


def deliver(
    engine: Engine, settings: Settings, targets: Sequence[Target] | None = None, retry_now: bool = False
) -> Delivered:
    """Send what is due to every target; nothing if another process is delivering.

    Args:
        targets: by default those that the settings name.
        retry_now: also send what failed before and would wait for its next attempt.

    Raises:
        SettingsError: a setting of the messages is invalid.
        WarehouseError: the data store cannot be reached, or failed.
    """
    targets = targets_of(settings) if targets is None else targets
    quiet = settings.quiet_hours
    if not targets:
        return Delivered()
    migrate(engine)
    deadline = time.monotonic() + BUDGET_SECONDS
    sent = failed = 0
    try:
        # A file of its own: requests to targets must not keep promotions waiting.
        with hold(engine, "delivering messages", wait=0, file="delivery") as lock:
            for target in targets:
                lock.check()
                found = _Delivery(engine, settings, target, quiet, retry_now).run(deadline)
                sent, failed = sent + found.sent, failed + found.failed
    except LockTaken:
        log.info("another process is delivering messages")
    return Delivered(sent, failed)


def try_to_deliver(engine: Engine, settings: Settings) -> None:
    """Send what is due; log a failure, since the next delivery tries again."""
    try:
        deliver(engine, settings)
    except DoselError as error:
        log.warning("messages are not delivered now: %s", error)


def next_attempt(now: datetime, attempts: int, jitter: float) -> datetime:
    """When to try again after so many failed attempts: the pause doubles, up to an hour.

    Args:
        jitter: 0 to 1; shortens the pause by up to a half, so that targets are not asked in step.
    """
    pause = min(FIRST_PAUSE * (1 << min(attempts - 1, 16)), LONGEST_PAUSE)
    return now + pause * (1 - jitter / 2)


def is_quiet(hours: tuple[time_of_day, time_of_day] | None, now: time_of_day) -> bool:
    """Whether a time of the day lies within the hours, which may span midnight."""
    if hours is None:
        return False
    begin, end = hours
    return begin <= now < end if begin <= end else now >= begin or now < end


def held_back(settings: Settings, now: time_of_day) -> str:
    """Why messages that are not urgent wait at this time of the day, or ""."""
    if not settings.notify.strip():
        return ""
    if (hours := settings.quiet_hours) is not None and is_quiet(hours, now):
        return f"quiet hours until {hours[1]:%H:%M}: only messages of harm and failed tasks are sent by DOSEL_NOTIFY"
    if settings.notify_digest:
        return f"messages by DOSEL_NOTIFY wait up to {settings.notify_digest:g} minutes, to be sent together"
    return ""


def waiting(settings: Settings, events: Sequence[StoredEvent], quiet: bool, now: datetime) -> list[StoredEvent]:
    """What a target that takes digests gets now: urgent events at once, the others after quiet hours, together."""
    others = [event for event in events if event.kind not in URGENT]
    digest = timedelta(minutes=settings.notify_digest)
    if quiet or (others and now - others[0].at < digest):
        return [event for event in events if event.kind in URGENT]
    return list(events)


class _Delivery:
    """The delivery to one target."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        target: Target,
        quiet: tuple[time_of_day, time_of_day] | None,
        retry_now: bool,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._target = target
        self._quiet = quiet
        self._retry_now = retry_now
        # The attempts so far, by the event's id; read together with the events.
        self._attempts: dict[int, int] = {}

    def run(self, deadline: float) -> Delivered:
        """Send until nothing is due, a request fails, or the time is over."""
        sent = 0
        while time.monotonic() < deadline:
            for events in (due := self._due()):
                if time.monotonic() >= deadline:
                    return Delivered(sent)
                try:
                    self._target.send(events)
                except DeliveryError as error:
                    # The target probably cannot be reached: the other events wait for the next delivery.
                    self._mark_failed(events, str(error))
                    log.warning("%d events wait: %s", len(events), error)
                    return Delivered(sent, 1)
                self._mark_delivered(events)
                sent += len(events)
            if not due:
                break
        return Delivered(sent)

    def _due(self) -> list[list[StoredEvent]]:
        """The next messages, each as its events."""
        now = datetime.now(UTC)
        name = self._target.name
        later = select(DELIVERIES.c.event_id).where(
            DELIVERIES.c.event_id == EVENTS.c.id,
            DELIVERIES.c.target == name,
            DELIVERIES.c.next_at > now.replace(tzinfo=None),
        )
        with transaction(self._engine) as connection:
            after = self._last_skipped(connection, now)
            # Urgent ones first: they pass those that wait for the end of the quiet hours.
            order = (EVENTS.c.kind.not_in(URGENT), EVENTS.c.id)
            due = (EVENTS.c.id > after) & ~outbox.delivered_to(name)
            if not self._retry_now:
                due &= ~later.exists()
            query = select(EVENTS).where(due).order_by(*order).limit(CHUNK)
            events = [stored_event(row) for row in connection.execute(query).mappings()]
            tried = select(DELIVERIES.c.event_id, DELIVERIES.c.attempts).where(
                DELIVERIES.c.target == name, DELIVERIES.c.event_id.in_([event.id for event in events])
            )
            self._attempts = {row.event_id: row.attempts for row in connection.execute(tried)}
        if not self._target.takes_digests:
            return [[event] for event in events]
        ready = waiting(self._settings, events, is_quiet(self._quiet, datetime.now().time()), now)
        if self._settings.notify_digest and ready:
            return [ready]
        return [[event] for event in ready]

    def _last_skipped(self, connection: Connection, now: datetime) -> int:
        """The id of the last event before the target was added; the target gets the events after it."""
        known = outbox.last_before(connection, self._target.name)
        if known is not None:
            return known
        after = outbox.newest_too_old(connection, now)
        connection.execute(insert(TARGETS).values(target=self._target.name, after_event=after))
        return after

    def _mark_delivered(self, events: Sequence[StoredEvent]) -> None:
        now = datetime.now(UTC).replace(tzinfo=None)
        with transaction(self._engine) as connection:
            for event in events:
                self._write(connection, event, delivered_at=now, next_at=now, last_error=None)

    def _mark_failed(self, events: Sequence[StoredEvent], error: str) -> None:
        now = datetime.now(UTC)
        with transaction(self._engine) as connection:
            for event in events:
                attempts = self._attempts.get(event.id, 0) + 1
                after = next_attempt(now, attempts, random.random()).replace(tzinfo=None)
                self._write(connection, event, next_at=after, last_error=error[:1000])

    def _write(self, connection: Connection, event: StoredEvent, **values: object) -> None:
        """Count an attempt. Only the process with the lock writes here."""
        attempts = self._attempts.get(event.id, 0)
        if attempts:
            connection.execute(update(DELIVERIES).where(self._mine(event)).values(attempts=attempts + 1, **values))
        else:
            row = {"event_id": event.id, "target": self._target.name, "attempts": 1} | values
            connection.execute(insert(DELIVERIES).values(row))
        self._attempts[event.id] = attempts + 1

    def _mine(self, event: StoredEvent) -> ColumnElement[bool]:
        return (DELIVERIES.c.event_id == event.id) & (DELIVERIES.c.target == self._target.name)
