"""Dependencies of the endpoints."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial, wraps
from inspect import Parameter, signature
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.security import APIKeyHeader
from pydantic import BaseModel

from app.http.clients import PROMOTER, client_of
from app.http.parameters import check_parameters
from app.serving.follower import ModelFollower
from app.serving.loaded_model import Overloaded
from app.serving.work_queue import WorkQueue
from dosel.errors import UnknownUseCase
from dosel.rows.shortened import cut
from dosel.usecases import UseCase

T = TypeVar("T")

MOST_ID = 2**63 - 1
"""The largest id of a row in the data store."""

PLACE_SECONDS = 1.0
"""How long a request waits before a full queue refuses it."""


async def _follower(request: Request) -> ModelFollower:
    follower: ModelFollower = request.app.state.follower
    return follower


FollowerDep = Annotated[ModelFollower, Depends(_follower)]

_KEY = APIKeyHeader(name="X-API-Key", auto_error=False, description="A key with the role promoter.")


async def _key_holder(request: Request, _: Annotated[str | None, Security(_KEY)]) -> str:
    """The holder of the request's key, which `app.http.middleware` has checked before the body was read."""
    return str(request.scope[PROMOTER])


KeyHolder = Annotated[str, Depends(_key_holder)]


def of_model(name: str, use_cases: Sequence[UseCase]) -> UseCase:
    """The use case of a registered model.

    Raises:
        UnknownUseCase: none has this model; the message lists the models.
    """
    for use_case in use_cases:
        if use_case.model_name == name:
            return use_case
    raise UnknownUseCase(f"no model {cut(name)!r}; there are: {', '.join(u.model_name for u in use_cases)}")


async def _client(request: Request) -> str:
    return client_of(request.scope)


def tagged_router(tag: str, responses: dict[int | str, dict[str, Any]] | None = None) -> APIRouter:
    """A router whose routes the app takes as they are: including a router builds each route for a second time."""
    return APIRouter(
        tags=[tag],
        responses=responses,
        dependencies=[Depends(check_parameters)],
        # A body without a content type is read as JSON; another content type gets a 415.
        strict_content_type=False,
    )


def in_queue(queue: WorkQueue) -> Callable[[Callable[..., T]], Callable[..., Awaitable[T | Response]]]:
    """Makes an endpoint of a function that waits for another service: it runs in a thread of `queue`.

    The framework's own threads, which all such functions would share, stay free for the others. A request for which
    `queue` has no place tries once more after `PLACE_SECONDS`.
    """

    def made(call: Callable[..., T]) -> Callable[..., Awaitable[T | Response]]:
        def encoded(**values: Any) -> T | Response:
            # Here, since the framework would check and encode a body in the event loop.
            answer = call(**values)
            if isinstance(answer, BaseModel):
                return Response(answer.model_dump_json(by_alias=True), media_type="application/json")
            return answer

        @wraps(call)
        async def endpoint(*, client: str, **values: Any) -> T | Response:
            try:
                queue.check(client)
            except Overloaded:
                # A client that asks again as soon as it is refused would take more of the event loop than reads do.
                await asyncio.sleep(PLACE_SECONDS)
            return await queue.run(client, partial(encoded, **values))

        own = Parameter("client", Parameter.KEYWORD_ONLY, annotation=Annotated[str, Depends(_client)])
        described = signature(call)
        parameters = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in described.parameters.values()]
        endpoint.__signature__ = described.replace(parameters=[*parameters, own])  # type: ignore[attr-defined]
        return endpoint

    return made
