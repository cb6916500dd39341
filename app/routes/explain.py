"""Why the model answers a row so: what it is near, and what each of its values contributed."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from app.http.problems import Problem, documented
from app.http.validation_errors import cut
from app.routes.dependencies import FollowerDep
from app.routes.predict import ModelQuery, asked_for, takes_row_of
from app.schemas.explanations import explained, explanation_model
from app.schemas.rows import row_model
from app.serving.loaded_model import STALE, LoadedModel
from app.serving.work_queue import WorkQueue
from dosel.errors import NotExplainable
from dosel.settings import Settings
from dosel.usecases import UseCase

NEIGHBOURS = 5
MOST_NEIGHBOURS = 50

WAITING = 16
"""Explanations that may wait for the one that is worked on; those beyond are answered 503."""

RESPONSES = documented(400, 401, 404, 408, 413, 415, 422, 429, 503) | {
    409: {
        "model": Problem,
        "description": "What answers was registered without its training rows, or is not the version asked about.",
    }
}

NeighboursQuery = Annotated[
    int, Query(ge=1, le=MOST_NEIGHBOURS, description="How many of the nearest training rows to list.")
]
ContributionsQuery = Annotated[
    bool, Query(description="Whether to find contributions; without them the answer takes milliseconds.")
]
VersionQuery = Annotated[
    int | None,
    Query(description="Explain this version's answer or nothing: what a prediction named. Left out: what answers now."),
]


def router(use_cases: Sequence[UseCase], settings: Settings) -> APIRouter:
    made = APIRouter(tags=["explain"], responses=RESPONSES)
    # One at a time: the libraries underneath use all cores for one already, and predictions want some.
    queue = WorkQueue("explanations", 1, WAITING)
    for use_case in use_cases:
        _add(made, use_case, queue, settings.explain_budget)

    @made.post("/explain/{use_case}", include_in_schema=False)
    async def unknown(use_case: str, follower: FollowerDep) -> None:
        follower.named(cut(use_case))

    return made


def _add(router: APIRouter, use_case: UseCase, queue: WorkQueue, budget: float) -> None:
    Body: Any = row_model(use_case)
    Explanation: Any = explanation_model(use_case)

    @router.post(
        f"/explain/{use_case.name}",
        summary=f"{use_case.title}: why the model answers so",
        description=_described(use_case, budget),
        operation_id=f"explain_{use_case.name}",
        dependencies=[Depends(takes_row_of(use_case))],
        response_model=Explanation,
    )
    async def explain(
        row: Body,
        response: Response,
        follower: FollowerDep,
        model: ModelQuery = None,
        version: VersionQuery = None,
        neighbours: NeighboursQuery = NEIGHBOURS,
        contributions: ContributionsQuery = True,
    ) -> Any:
        served, stale = await asked_for(follower, use_case, model)
        _check(served, version)
        values = row.model_dump(include=set(use_case.feature_names))

        async def taken_in() -> Callable[[], Any]:
            within = budget if contributions else None
            return lambda: explained(
                Explanation, use_case, served.version, values, served.explainer.explain(values, neighbours, within)
            )

        answer = await queue.run(taken_in)
        if stale:
            response.headers[STALE] = "true"
        return answer


def _check(served: LoadedModel, asked: int | None) -> None:
    """
    Raises:
        NotExplainable: another version has taken over since.
    """
    if asked is not None and asked != served.version.version:
        raise NotExplainable(
            f"version {served.version.version} of {served.version.name} answers now, not version {asked}: predict again"
        )


def _described(use_case: UseCase, budget: float) -> str:
    shown = (
        "and their values"
        if use_case.expose_training_rows
        else "but not their values, which this use case does not show"
    )
    return (
        "Takes the row that `/predict` takes and says, by one and the same model: the prediction; the nearest training "
        f"rows, in the space the model works in, with their classes {shown}; where the row lies among a sample of the "
        "training rows, in their first two principal components; and what each value contributed to the predicted "
        "class.\n\n"
        "Contributions are Shapley values: exact if the model allows, otherwise drawn at random within "
        f"{budget:g} s, with their standard errors; `exact` says which. The first call after a version took over takes "
        "longer."
    )
