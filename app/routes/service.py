"""Whether this service lives, and whether it can answer."""

from fastapi import APIRouter, Request, Response

from app.http.metrics import MEDIA_TYPE
from app.http.problems import documented
from app.routes.dependencies import FollowerDep
from app.schemas.service import Greeting, Health, Readiness, Ready
from app.serving.loaded_model import NotReady


class MetricsText(Response):
    media_type = MEDIA_TYPE


def router() -> APIRouter:
    made = APIRouter(tags=["service"])

    @made.get("/", summary="Greets, and points to the documentation")
    async def greet() -> Greeting:
        return Greeting(message="This is dosel: it answers with the model that is in Production.", docs="/docs")

    @made.get("/healthz", summary="Whether this process lives")
    async def health() -> Health:
        return Health()

    @made.get("/metrics", include_in_schema=False)
    async def figures(request: Request) -> MetricsText:
        return MetricsText(request.app.state.metrics.text())

    @made.get("/readyz", summary="Whether a model answers", responses=documented(503))
    async def ready(follower: FollowerDep) -> Ready:
        """Ready as soon as one use case has a model: another one that still waits must not take that from it."""
        states = {}
        for use_case in follower.use_cases:
            served = follower.loaded(use_case)
            states[use_case.name] = Readiness(
                ready=served is not None,
                version=served.version.version if served else None,
                waiting_for=follower.waiting_for(use_case) or None,
            )
        if not any(state.ready for state in states.values()):
            waits = "; ".join(f"{name} waits for {state.waiting_for}" for name, state in states.items())
            raise NotReady(f"no model answers yet: {waits}")
        stale = [u.name for u in follower.use_cases if follower.loaded(u) and follower.stale(u)]
        return Ready(use_cases=states, stale=stale)

    return made
