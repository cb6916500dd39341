"""The list of events."""

from functools import cache
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query

from app.http.problems import documented
from app.routes.dependencies import MOST_ID, FollowerDep, in_queue, tagged_router
from app.schemas.events import EventInfo, Events
from app.serving.work_queue import WorkQueue
from dosel.settings import Settings

if TYPE_CHECKING:
    from dosel.warehouse.events import EventStore

MOST = 1000
"""Most events in one answer."""


def router(settings: Settings, reads: WorkQueue) -> APIRouter:
    made = tagged_router("events")

    @cache
    def store() -> "EventStore":
        from dosel.db.engine import connect
        from dosel.warehouse.events import EventStore

        return EventStore(connect(settings.warehouse_url))

    @made.get(
        "/events",
        summary="What happened, newest first: promotions, refusals, harm, failed tasks",
        responses=documented(401, 404, 422, 503),
    )
    @in_queue(reads)
    def list_events(
        follower: FollowerDep,
        use_case: Annotated[str | None, Query(description="Only events of this use case.")] = None,
        before: Annotated[int | None, Query(ge=1, le=MOST_ID, description="Only events with a lower id.")] = None,
        limit: Annotated[int, Query(ge=1, le=MOST, description="Most events in the answer.")] = 100,
    ) -> Events:
        """Each event has its evidence, the page to look at, and the command to run."""
        if use_case is not None:
            follower.named(use_case)
        found = store().newest(limit + 1, use_case, before)
        page = found[:limit]
        return Events(
            events=[EventInfo.of(event, settings) for event in page],
            next_before=page[-1].id if len(found) > limit else None,
        )

    return made
