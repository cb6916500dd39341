"""The list of events."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, get_args

from fastapi import APIRouter, Query

from app.http.problems import documented
from app.routes.dependencies import MOST_ID, FollowerDep, in_queue, tagged_router
from app.schemas.events import EventInfo, EventKind, Events
from app.serving.work_queue import WorkQueue
from dosel.settings import Settings
from dosel.usecases import UseCase

if TYPE_CHECKING:
    from dosel.warehouse.events import EventStore

MOST = 1000
"""Most events in one answer."""

KINDS = frozenset(get_args(EventKind))


def router(use_cases: Sequence[UseCase], settings: Settings, reads: WorkQueue) -> APIRouter:
    made = tagged_router("events")
    names = [use_case.name for use_case in use_cases]
    opened = {use_case.name for use_case in use_cases if use_case.expose_training_rows}

    def is_open(name: str) -> bool:
        # The events of all use cases, and of those whose declaration was removed, may be about a closed one.
        return name in opened or (name not in names and len(opened) == len(names))

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
        limit: Annotated[int, Query(ge=1, le=MOST, description="Maximum number of events in the answer.")] = 100,
    ) -> Events:
        """Each event has its evidence, the page to look at, and the command to run."""
        if use_case is not None:
            follower.named(use_case)
        found = store().newest(limit + 1, use_case, before)
        page = found[:limit]
        return Events(
            # A newer dosel may have written kinds that this one does not know.
            events=[EventInfo.of(event, settings, is_open(event.use_case)) for event in page if event.kind in KINDS],
            next_before=page[-1].id if len(found) > limit else None,
        )

    return made
