"""Whether this service is alive and ready."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from app.http.clients import holder_of
from app.http.metrics import MEDIA_TYPE
from app.http.problems import documented
from app.routes.dependencies import FollowerDep, tagged_router
from app.schemas.service import Greeting, Health, Readiness, Ready
from app.serving.loaded_model import NotReady
from dosel.settings import Settings
from dosel.usecases import UseCase


class MetricsText(Response):
    media_type = MEDIA_TYPE


def router(use_cases: Sequence[UseCase], settings: Settings) -> APIRouter:
    made = tagged_router("service")
    keys = settings.read_key_names
    closed = [use_case.name for use_case in use_cases if not use_case.expose_training_rows]

    @made.get("/", summary="A greeting, with the path of the documentation")
    async def greet() -> Greeting:
        return Greeting(message="This is dosel: it predicts with the model in Production.", docs="/docs")

    @made.get("/healthz", summary="Whether this process is alive")
    async def health() -> Health:
        return Health()

    @made.get("/metrics", include_in_schema=False)
    async def figures(request: Request, x_api_key: Annotated[str, Header()] = "") -> MetricsText:
        # As for their health: figures about closed use cases need a key, if there are keys.
        may_see_all = not keys or holder_of(keys, x_api_key.encode("latin-1")) is not None
        return MetricsText(await request.app.state.metrics.text(() if may_see_all else closed))

    @made.get("/readyz", summary="Whether a model answers", responses=documented(503))
    async def ready(follower: FollowerDep) -> Ready:
        """Ready as soon as one use case has a model, so that a use case without one does not block the others."""
        states = {}
        for use_case in follower.use_cases:
            loaded = follower.loaded(use_case)
            states[use_case.name] = Readiness(
                ready=loaded is not None,
                version=loaded.version.version if loaded else None,
                waiting_for=follower.waiting_for(use_case) or None,
            )
        if not any(state.ready for state in states.values()):
            waits = "; ".join(f"{name} is waiting for {state.waiting_for}" for name, state in states.items())
            raise NotReady(f"no model answers yet: {waits}")
        stale = [u.name for u in follower.use_cases if follower.loaded(u) and follower.stale(u)]
        return Ready(use_cases=states, stale=stale)

    return made
