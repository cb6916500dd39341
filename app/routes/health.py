"""The health of the version in Production: one thread computes it, and requests that wait share one computation."""

from functools import cache, partial
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, HTTPException, Path, Response

from app.http.problems import documented
from app.routes.dependencies import FollowerDep, tagged_router
from app.schemas.health import HealthInfo
from app.serving.follower import ModelFollower
from app.serving.work_queue import Pauses, SharedCalls
from dosel.settings import Settings
from dosel.usecases import UseCase

if TYPE_CHECKING:
    from dosel.monitor.truths import TruthStore

WAIT_SECONDS = 10.0
"""How long a request waits for the health."""


def router(settings: Settings, pauses: Pauses) -> APIRouter:
    made = tagged_router("health")
    calls = SharedCalls("computations of the health", WAIT_SECONDS, pauses)

    @cache
    def truths() -> "TruthStore":
        from dosel.db.engine import connect
        from dosel.monitor.truths import TruthStore

        return TruthStore(connect(settings.warehouse_url))

    def compute(use_case: UseCase, follower: ModelFollower) -> bytes:
        from dosel.monitor.health import health

        found = health(use_case, follower.registry().ledger, truths(), for_readers=True)
        if found is None:
            raise HTTPException(404, f"{use_case.name}: nothing was in Production yet")
        # As JSON here, so that neither the event loop nor each of the callers writes it.
        return HealthInfo.of(use_case, found).model_dump_json().encode()

    @made.get(
        "/use-cases/{name}/health",
        summary="Whether the version in Production is still as good as the gate found",
        responses=documented(404, 503),
        response_model=HealthInfo,
    )
    async def show_health(
        name: Annotated[str, Path(description="Name of the use case.")], follower: FollowerDep
    ) -> Response:
        """Accuracy and each class's recall on labelled live rows, against the held-out rows of the gate.

        You may check the state and the bounds as often as you like. A false `harmed` has at most the declared
        probability (`alpha`), over all labels, metrics and versions together.
        """
        found = await calls.run(name, partial(compute, follower.named(name), follower))
        return Response(found, media_type="application/json")

    return made
