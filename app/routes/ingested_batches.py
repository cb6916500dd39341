"""The batch ledger and the quarantine: calls that wait for the data store, in their own threads."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Query

from app.http.problems import documented
from app.routes.dependencies import MOST_ID, FollowerDep, in_queue, tagged_router
from app.schemas.batches import Batch, Batches, Quarantine, Refused, RefusedBatch
from app.serving.work_queue import WorkQueue
from dosel.settings import Settings
from dosel.usecases import UseCase

if TYPE_CHECKING:
    # Importing it takes a second, in which the app can already answer /healthz.
    from dosel.warehouse.batches import BatchStore

MOST = 1000
"""Most entries in one answer."""

Name = Annotated[str, Path(description="Name of the use case.")]
Limit = Annotated[int, Query(ge=1, le=MOST, description="Maximum number of entries in the answer.")]


def router(use_cases: Sequence[UseCase], settings: Settings, reads: WorkQueue) -> APIRouter:
    made = tagged_router("batches")
    declared = {use_case.name: use_case for use_case in use_cases}

    @cache
    def opened(name: str) -> "BatchStore":
        from dosel.db.engine import connect
        from dosel.warehouse.batches import BatchStore

        return BatchStore(connect(settings.warehouse_url), declared[name])

    @made.get(
        "/use-cases/{name}/batches",
        summary="The batch ledger, newest first, with the totals of all batches",
        responses=documented(404, 422, 503),
    )
    @in_queue(reads)
    def list_batches(name: Name, follower: FollowerDep, limit: Limit = 100) -> Batches:
        use_case = follower.named(name)
        store = opened(use_case.name)
        records, refusals = store.records(), store.refusals()
        return Batches(
            count=len(records),
            rows_received=sum(record.rows_received for record in records),
            rows_clean=sum(record.rows_clean for record in records),
            rows_refused=sum(record.rows_refused for record in records),
            rows_duplicate=sum(record.rows_duplicate for record in records),
            batches=[Batch.of(use_case, b) for b in reversed(records[-limit:])],
            refused=[RefusedBatch.of(use_case, b) for b in reversed(refusals[-limit:])],
        )

    @made.get(
        "/use-cases/{name}/quarantine",
        summary="Refused rows with the reason and the received values, newest batch first",
        responses=documented(404, 422, 503),
    )
    @in_queue(reads)
    def list_refused(
        name: Name,
        follower: FollowerDep,
        limit: Limit = 100,
        batch: Annotated[int | None, Query(ge=1, le=MOST_ID, description="Id of one batch; by default all.")] = None,
    ) -> Quarantine:
        use_case = follower.named(name)
        refused = opened(use_case.name).quarantine(limit, batch)
        rows = [Refused.of(use_case, row) for row in refused]
        return Quarantine(rows=rows if use_case.expose_training_rows else [row.masked() for row in rows])

    return made
