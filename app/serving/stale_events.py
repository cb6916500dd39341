"""Writes an event when the API cannot follow Production for longer than a minute, and one when it does again."""

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from app.serving.slot import Slot
from dosel.errors import DoselError

if TYPE_CHECKING:
    from dosel.warehouse.events import EventStore

PATIENCE = timedelta(minutes=1)

RETRY = timedelta(seconds=30)
"""Pause between two attempts to write an event: the data store may be what the API waits for."""

log = logging.getLogger("uvicorn.error")


class StaleEvents:
    """Watches slots after each poll."""

    def __init__(self, warehouse_url: str) -> None:
        self._url = warehouse_url
        self._store: EventStore | None = None
        self._retry_at = datetime.min.replace(tzinfo=UTC)

    def watch(self, slot: Slot) -> None:
        """Note since when polls fail; write an event if they fail for long, and one when they succeed again."""
        now = datetime.now(UTC)
        if slot.failed and slot.stale_since is None:
            slot.stale_since, slot.stale_reported = now, False
        since = slot.stale_since
        if since is None or slot.family:
            return
        if slot.stale_reported and not slot.failed:
            self._report(slot, since, now, ended=True)
        if now - since > PATIENCE and not slot.stale_reported and (now >= self._retry_at or not slot.failed):
            slot.stale_reported = self._report(slot, since, now)
        if not slot.failed:
            slot.stale_since = None

    def _report(self, slot: Slot, since: datetime, now: datetime, ended: bool = False) -> bool:
        # Imported here: the app must answer before such imports have ended.
        from dosel.db.engine import connect
        from dosel.monitor.incidents import follows_again, stale
        from dosel.warehouse.events import EventStore

        name, version = slot.use_case.name, slot.loaded.version.version if slot.loaded else None
        if ended:
            event = follows_again(name, version, since, now)
        else:
            ended_at = f"the API has followed Production again since {now:%Y-%m-%d %H:%M:%S} UTC"
            event = stale(name, version, since, f"it waits for {slot.waiting_for}" if slot.waiting_for else ended_at)
        try:
            self._store = self._store or EventStore(connect(self._url))
            self._store.add(event)
        except DoselError as error:
            self._retry_at = now + RETRY
            log.warning("%s: an event about following Production cannot be written: %s", name, error)
            return False
        return True
