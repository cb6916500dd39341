"""One row in, one answer out."""

from collections.abc import Awaitable, Callable, Sequence
from email.message import Message
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from app.http.problems import documented
from app.http.validation_errors import cut
from app.routes.dependencies import FollowerDep
from app.schemas.answers import Answer, ModelReference
from app.schemas.rows import Row, request_model, row_model
from app.serving.follower import ModelFollower
from app.serving.loaded_model import STALE, LoadedModel
from app.serving.prediction_log import LogEntry
from dosel.usecases import UseCase

RESPONSES = documented(400, 401, 404, 408, 413, 415, 422, 429, 503)

ModelQuery = Annotated[
    str | None,
    Query(
        description="The registered model of the use case, which means what is in Production, as leaving it out does; "
        "or one of its families: `GET /use-cases` lists them."
    ),
]


def router(use_cases: Sequence[UseCase], default: UseCase) -> APIRouter:
    """A typed route a use case, one for the default, and one that knows the names when somebody does not."""
    made = APIRouter(tags=["predict"], responses=RESPONSES)
    _add_default(made, default)
    for use_case in use_cases:
        _add(made, use_case)

    @made.post("/predict/{use_case}", include_in_schema=False)
    async def unknown(use_case: str, follower: FollowerDep) -> None:
        follower.named(cut(use_case))

    return made


def _add(router: APIRouter, use_case: UseCase) -> None:
    Body: Any = row_model(use_case)

    @router.post(
        f"/predict/{use_case.name}",
        summary=use_case.title,
        description=_described(use_case),
        operation_id=f"predict_{use_case.name}",
        dependencies=[Depends(takes_row_of(use_case))],
    )
    async def predict(
        row: Body, request: Request, response: Response, follower: FollowerDep, model: ModelQuery = None
    ) -> Answer:
        return await _answer(request, response, follower, use_case, row, model)


def _add_default(router: APIRouter, use_case: UseCase) -> None:
    Body: Any = request_model(use_case)

    @router.post(
        "/predict",
        summary=f"{use_case.title}, as older clients ask",
        description=_described(use_case),
        operation_id="predict",
        dependencies=[Depends(takes_row_of(use_case))],
    )
    async def predict(
        row: Body, request: Request, response: Response, follower: FollowerDep, model: ModelQuery = None
    ) -> Answer:
        return await _answer(request, response, follower, use_case, row, row.model, model)


async def _answer(
    request: Request, response: Response, follower: ModelFollower, use_case: UseCase, row: Row, *models: str | None
) -> Answer:
    served, stale = await asked_for(follower, use_case, *models)
    [answer] = served.predictor.predict([row.model_dump(include=set(use_case.feature_names))])
    version = served.version
    if stale:
        response.headers[STALE] = "true"
    asked = await request.body()
    request.app.state.record.offer(LogEntry.of(request.scope, use_case, version, asked, answer.prediction))
    return Answer(
        prediction=answer.prediction,
        label=answer.label,
        probabilities=answer.probabilities,
        model=ModelReference(name=version.name, version=version.version, run_id=version.run_id),
    )


async def asked_for(follower: ModelFollower, use_case: UseCase, *models: str | None) -> tuple[LoadedModel, bool]:
    """What is to answer, by the names a request has for it, and whether it may be stale.

    Raises:
        ModelNotFound: a name is neither the use case's registered model nor one of its families.
        NotReady: nothing of it is loaded.
    """
    families = []
    for model in filter(None, models):
        if use_case.family(model):
            families.append(model)
        else:
            follower.check_model(use_case, cut(model))
    if not families:
        return follower.in_production(use_case), follower.stale(use_case)
    family = families[-1]
    served = follower.of_family(use_case, family)
    if served is None:
        served = await run_in_threadpool(follower.load_family, use_case, family)
    return served, follower.stale(use_case, family)


def takes_row_of(use_case: UseCase) -> Callable[[Request], Awaitable[None]]:
    async def takes_row(request: Request) -> None:
        # What a refused field is explained with: a validation error does not say which route it came from.
        request.state.use_case = use_case
        declared = request.headers.get("content-type")
        if declared and content_type(declared) != "application/json":
            raise HTTPException(
                415,
                f"the body says it is {cut(declared)}; send JSON and the header Content-Type: application/json "
                "(curl: -H 'Content-Type: application/json')",
            )

    return takes_row


def content_type(header: str) -> str:
    """What a Content-Type means, without its parameters; every kind of JSON is `application/json`."""
    message = Message()
    message["content-type"] = header
    main, sub = message.get_content_maintype(), message.get_content_subtype()
    is_json = main == "application" and (sub == "json" or sub.endswith("+json"))
    return "application/json" if is_json else f"{main}/{sub}"


def _described(use_case: UseCase) -> str:
    classes = ", ".join(f"{code} {label}" for code, label in use_case.target.labels.items())
    return (
        f"{use_case.summary}\n\n"
        f"Answers with what is in Production. `prediction` is the {use_case.target.title.lower()}: {classes}."
    )
