"""Feedback: the truth about answers, from clients that learn it later."""

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from fastapi import APIRouter, HTTPException, Request

from app.http.clients import client_of
from app.http.problems import BatchProblem, documented, invalid_rows
from app.routes.bulk_predict import CSV, JSON
from app.routes.dependencies import FollowerDep, tagged_router
from app.routes.predict import content_type
from app.schemas.feedback import ReceiptInfo, truths_schema
from app.serving.memory import release_memory
from app.serving.work_queue import WorkQueue
from dosel.errors import UnknownAnswers
from dosel.rows.shortened import cut
from dosel.rows.validation import InvalidRows
from dosel.settings import Settings
from dosel.usecases import UseCase

if TYPE_CHECKING:
    from dosel.monitor.feedback import FeedbackStore
    from dosel.monitor.feedback_rows import GivenTruth

ATTEMPTS, PAUSE_SECONDS = 4, 0.7
"""An answer may be in the queue of the prediction log for a second, in this process or in another worker.

So unknown ids are looked for again, for some two seconds, before the call is answered 404. The request waits without
a thread.
"""

SECONDS = 30.0
"""How long a request waits for the data store."""

LARGE_BYTES = 100_000
"""After a larger body, free memory is returned to the operating system."""


def router(use_cases: Sequence[UseCase], settings: Settings) -> APIRouter:
    made = tagged_router(
        "feedback", documented(400, 401, 403, 404, 408, 409, 413, 415, 429, 503) | documented(422, model=BatchProblem)
    )
    queue = WorkQueue("feedback", 2, 30, SECONDS)
    for use_case in use_cases:
        _add(made, use_case, queue, settings)

    @made.post("/feedback/{use_case}", include_in_schema=False)
    async def unknown(use_case: str, follower: FollowerDep) -> None:
        follower.named(use_case)

    return made


def _add(router: APIRouter, use_case: UseCase, queue: WorkQueue, settings: Settings) -> None:
    @cache
    def store() -> "FeedbackStore":
        from dosel.db.engine import connect
        from dosel.monitor.feedback import FeedbackStore
        from dosel.registry.ledger import PromotionLedger

        engine = connect(settings.warehouse_url)
        return FeedbackStore(engine, use_case, PromotionLedger(engine))

    example = (
        f"request_id,row,truth\n6f1c2a9b-415f9a7703be7cc1d2f8e03b5a6c9d17,1,{next(iter(use_case.target.labels))}\n"
    )
    body = {
        JSON: {"schema": truths_schema(use_case.target)},
        CSV: {"schema": {"type": "string"}, "example": example},
    }

    @router.post(
        f"/feedback/{use_case.name}",
        summary=f"{use_case.title}: send the true classes of answered rows",
        operation_id=f"feedback_{use_case.name}",
        openapi_extra={"requestBody": {"required": True, "content": body}},
    )
    async def give_feedback(request: Request) -> ReceiptInfo:
        """The true classes of answered rows, as a JSON list or as CSV with a header.

        All rows of a call are stored, or none. The same truth again is counted and changes nothing; another truth for
        the same row is refused.
        """
        declared = request.headers.get("content-type", "")
        kind = content_type(declared) if declared else JSON
        if kind not in (JSON, CSV):
            raise HTTPException(415, f"the Content-Type is {cut(declared)}; send {JSON} or {CSV}")
        received, client = await request.body(), client_of(request.scope)

        def work() -> ReceiptInfo:
            given = _read(use_case, kind, received)
            # A bulk request's rows are logged in parts: without the flush, the last ones would be unknown.
            request.app.state.record.flush()
            receipt = store().add(given)
            if receipt.accepted:
                request.app.state.shadowing.judge_soon(use_case)
            return ReceiptInfo.model_validate(receipt)

        attempts = iter(range(ATTEMPTS - 1))
        while True:
            try:
                return await queue.run(client, work)
            except InvalidRows as bad:
                return invalid_rows(request, bad)  # type: ignore[return-value]
            except UnknownAnswers as unknown:
                if not unknown.may_come or next(attempts, None) is None:
                    raise
            await asyncio.sleep(PAUSE_SECONDS)


def _read(use_case: UseCase, kind: str, received: bytes) -> "list[GivenTruth]":
    """The rows of a body. After a large one, free memory is returned to the operating system."""
    from dosel.monitor.feedback_rows import read_csv, read_json

    try:
        return (read_json if kind == JSON else read_csv)(use_case.target, received)
    finally:
        if len(received) > LARGE_BYTES:
            release_memory()
