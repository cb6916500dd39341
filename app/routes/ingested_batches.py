"""The batch ledger and the quarantine: calls that wait for the data store, in their own threads."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Query

from app.http.problems import documented
from app.routes.dependencies import in_queue, tagged_router
from app.schemas.batches import Batch, Batches, Quarantine, Refused, RefusedBatch
from app.serving.work_queue import WorkQueue
from dosel.errors import UnknownUseCase
from dosel.rows.shortened import cut
from dosel.settings import Settings
from dosel.usecases import UseCase

if TYPE_CHECKING:
    # Importing it takes a second, in which the app can already answer /healthz.
    from dosel.warehouse.batches import BatchStore

MOST = 1000
"""Most entries in one answer."""

"""How long a request waits for the data store."""

MOST_ID = 2**63 - 1

Name = Annotated[str, Path(description="Name of the use case.")]
Limit = Annotated[int, Query(ge=1, le=MOST, description="Most entries in the answer.")]


def router(use_cases: Sequence[UseCase], settings: Settings, reads: WorkQueue) -> APIRouter:
    made = tagged_router("batches")
    named = {use_case.name: use_case for use_case in use_cases}

    @cache
    def opened(name: str) -> "BatchStore":
        from dosel.db.engine import connect
        from dosel.warehouse.batches import BatchStore

        return BatchStore(connect(settings.warehouse_url), named[name])

    def store(name: str) -> "BatchStore":
        if name not in named:
            raise UnknownUseCase(f"no use case {cut(name)!r}; there are: {', '.join(named)}")
        return opened(name)

    @made.get(
        "/use-cases/{name}/batches",
        summary="The batch ledger, newest first, with the totals of all batches",
        responses=documented(404, 422, 503),
    )
    @in_queue(reads)
    def list_batches(name: Name, limit: Limit = 100) -> Batches:
        records, refusals = store(name).records(), store(name).refusals()
        return Batches(
            count=len(records),
            rows_received=sum(record.rows_received for record in records),
            rows_clean=sum(record.rows_clean for record in records),
            rows_refused=sum(record.rows_refused for record in records),
            rows_duplicate=sum(record.rows_duplicate for record in records),
            batches=[Batch.model_validate(record, from_attributes=True) for record in reversed(records[-limit:])],
            refused=[RefusedBatch.model_validate(b, from_attributes=True) for b in reversed(refusals[-limit:])],
        )

    @made.get(
        "/use-cases/{name}/quarantine",
        summary="Refused rows with the reason and the received values, newest batch first",
        responses=documented(404, 422, 503),
    )
    @in_queue(reads)
    def list_refused(
        name: Name,
        limit: Limit = 100,
        batch: Annotated[int | None, Query(ge=1, le=MOST_ID, description="Id of one batch; by default all.")] = None,
    ) -> Quarantine:
        rows = [Refused.model_validate(row, from_attributes=True) for row in store(name).quarantine(limit, batch)]
        return Quarantine(rows=rows if named[name].expose_training_rows else [row.masked() for row in rows])

    return made
