"""Explanations: the nearest training rows, and the contribution of each value."""

from collections.abc import Sequence
from functools import partial
from math import ceil
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response

from app.http.clients import TokenBuckets, client_of
from app.http.problems import documented
from app.routes.dependencies import FollowerDep, tagged_router
from app.routes.predict import ModelQuery, asked_for, check_is_json
from app.schemas.explanations import NEAR, explained, explanation_model
from app.schemas.rows import row_model
from app.serving.loaded_model import STALE, LoadedModel
from app.serving.memory import collect_garbage
from app.serving.work_queue import WorkQueue
from dosel.errors import NotExplainable
from dosel.rows.columns import Columns
from dosel.rows.json import JsonReader
from dosel.settings import Settings
from dosel.usecases import UseCase

NEIGHBOURS = 5
MOST_NEIGHBOURS = 50

WAITING = 16
"""Length of the queue; further requests get a 503."""

BURST = 30.0
"""Explanations of closed use cases that a client may ask for at once."""

RESPONSES = documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503)
RESPONSES[409]["description"] = "The loaded version has no training rows, or is not the requested version."

NeighboursQuery = Annotated[
    int, Query(ge=1, le=MOST_NEIGHBOURS, description="Number of nearest training rows in the answer.")
]
ContributionsQuery = Annotated[
    bool, Query(description="Whether to compute contributions; without them the answer takes milliseconds.")
]
ExplainedVersion = Annotated[
    int | None,
    Query(description="Explain only this version's answer; by default the loaded version's."),
]


def router(use_cases: Sequence[UseCase], settings: Settings) -> APIRouter:
    made = tagged_router("explain", RESPONSES)
    # One at a time: predictions need the other cores.
    queue = WorkQueue("explanations", 1, WAITING)
    closed = TokenBuckets(settings.explain_rate, BURST)
    for use_case in use_cases:
        limited = settings.explain_rate and not use_case.expose_training_rows
        _add(made, use_case, queue, settings.explain_budget, closed if limited else None)

    @made.post("/explain/{use_case}", include_in_schema=False)
    async def unknown(use_case: str, follower: FollowerDep) -> None:
        follower.named(use_case)

    return made


def _add(router: APIRouter, use_case: UseCase, queue: WorkQueue, budget: float, buckets: TokenBuckets | None) -> None:
    schema = {"$ref": f"#/components/schemas/{row_model(use_case).__name__}"}
    reader = JsonReader(use_case)
    Explanation: Any = explanation_model(use_case)

    async def read_row(request: Request) -> dict[str, Any]:
        check_is_json(request.scope)
        body = await request.body()
        row = reader.ordinary_row(body)
        if row is None:
            row = await queue.run(client_of(request.scope), partial(reader.judged_row, body))
        numbers, codes, _ = row
        return Columns(np.array([numbers], np.float64), np.array([codes], np.intp)).row(use_case)

    @router.post(
        f"/explain/{use_case.name}",
        summary=f"{use_case.title}: the reasons for an answer",
        description=_described(use_case, budget),
        operation_id=f"explain_{use_case.name}",
        response_model=Explanation,
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}},
    )
    async def explain(
        row: Annotated[dict[str, Any], Depends(read_row)],
        request: Request,
        follower: FollowerDep,
        model: ModelQuery = None,
        version: ExplainedVersion = None,
        neighbours: NeighboursQuery = NEIGHBOURS,
        contributions: ContributionsQuery = True,
    ) -> Response:
        if buckets is not None and (wait := buckets.take(client_of(request.scope))):
            seconds = str(ceil(wait))
            detail = f"too many explanations of {use_case.name}; try again in {seconds} s"
            raise HTTPException(429, detail, {"Retry-After": seconds})
        served, stale = await asked_for(request.scope, follower, use_case, model)
        _check(served, version)
        within = budget if contributions else None

        # For a closed use case, the client must not choose the number of neighbours.
        count = neighbours if use_case.expose_training_rows else NEAR

        def work() -> bytes:
            # As bytes, since the framework would check and encode a body in the event loop.
            is_first = not served.has_explained
            found = served.explainer.explain(row, count, within)
            if is_first:
                # The first explanation imports libraries: otherwise, a full collection in a later request visits them.
                collect_garbage()
            return explained(Explanation, use_case, served.version, row, found).model_dump_json().encode()

        answer = await queue.run(client_of(request.scope), work)
        return Response(answer, media_type="application/json", headers={STALE: "true"} if stale else None)


def _check(served: LoadedModel, asked: int | None) -> None:
    """Check that the loaded version is the requested one.

    Raises:
        NotExplainable: another version is loaded by now.
    """
    if asked is not None and asked != served.version.version:
        raise NotExplainable(
            f"{served.version.name} version {served.version.version} is loaded now, not version {asked}; predict again"
        )


def _described(use_case: UseCase, budget: float) -> str:
    rows = (
        "the nearest training rows after the model's preprocessing, with their classes and values; the row's first two "
        "principal components among a sample of training rows"
        if use_case.expose_training_rows
        else "the classes of the nearest training rows, in coarse shares, since this use case is closed: it does not "
        "expose its training rows (`neighbours` has no effect)"
    )
    return (
        f"Takes the same row as `/predict`. The answer has the prediction; {rows}; and each value's contribution to "
        "the predicted class.\n\n"
        f"Contributions are Shapley values: exact if the model allows, otherwise sampled for {budget:g} s, with their "
        "standard errors; `exact` says which. The first call after a new version was loaded takes longer."
    )
