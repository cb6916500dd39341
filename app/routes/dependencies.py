"""Dependencies of the endpoints."""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from inspect import Parameter, signature
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader

from app.http.clients import PROMOTER, client_of
from app.serving.follower import ModelFollower
from app.serving.work_queue import WorkQueue

T = TypeVar("T")


async def _follower(request: Request) -> ModelFollower:
    follower: ModelFollower = request.app.state.follower
    return follower


FollowerDep = Annotated[ModelFollower, Depends(_follower)]

_KEY = APIKeyHeader(name="X-API-Key", auto_error=False, description="A key with the role promoter.")


async def _key_holder(request: Request, _: Annotated[str | None, Security(_KEY)]) -> str:
    """The holder of the request's key, which `app.http.middleware` has checked before the body was read."""
    return str(request.scope[PROMOTER])


KeyHolder = Annotated[str, Depends(_key_holder)]


async def _client(request: Request) -> str:
    return client_of(request.scope)


def in_queue(queue: WorkQueue) -> Callable[[Callable[..., T]], Callable[..., Awaitable[T]]]:
    """Makes an endpoint of a function that waits for another service: it runs in a thread of `queue`.

    The framework's own threads, which all such functions would share, stay free for the others.
    """

    def made(call: Callable[..., T]) -> Callable[..., Awaitable[T]]:
        @wraps(call)
        async def endpoint(*, client: str, **values: Any) -> T:
            return await queue.run(client, partial(call, **values))

        own = Parameter("client", Parameter.KEYWORD_ONLY, annotation=Annotated[str, Depends(_client)])
        described = signature(call)
        parameters = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in described.parameters.values()]
        endpoint.__signature__ = described.replace(parameters=[*parameters, own])  # type: ignore[attr-defined]
        return endpoint

    return made
