"""Promotions that wait for approvals: the list of them, and the 202 answer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from app.http.problems import documented
from app.routes.dependencies import FollowerDep, in_queue, of_model, tagged_router
from app.schemas.history import ApprovalRequest, ApprovalRequests
from app.serving.work_queue import WorkQueue
from dosel.errors import ApprovalsMissing
from dosel.usecases import UseCase

if TYPE_CHECKING:
    # Importing it takes seconds, in which the app can already answer /healthz.
    from dosel.registry.registry import Registry


def router(use_cases: Sequence[UseCase], reads: WorkQueue) -> APIRouter:
    made = tagged_router("registry")

    @made.get(
        "/models/{name}/approvals",
        summary="Promotions that wait for more people",
        responses=documented(404, 503),
    )
    @in_queue(reads)
    def show_approvals(name: str, follower: FollowerDep) -> ApprovalRequests:
        """To agree, send `POST /models/{name}/promote` with the same version and a key of your own."""
        use_case = of_model(name, use_cases)
        registry = follower.registry()
        last, names = registry.last_promotion(name), registry.approvals.names
        found = registry.approvals.open(name, last.sequence if last else 0)
        requests = [ApprovalRequest.of(use_case, request, names) for request in found]
        return ApprovalRequests(model=name, requests=requests)

    return made


def waiting(use_case: UseCase, registry: "Registry", missing: ApprovalsMissing) -> JSONResponse:
    """The answer 202, with the request that waits for more people."""
    requests = registry.approvals.of_model(use_case.model_name)
    found = next(request for request in requests if request.number == missing.number)
    return JSONResponse(ApprovalRequest.of(use_case, found, registry.approvals.names).model_dump(mode="json"), 202)
