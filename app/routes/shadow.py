"""The versions in shadow: what live rows showed of them, and ending a shadow by hand."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse

from app.http.problems import documented
from app.routes.approvals import waiting
from app.routes.dependencies import FollowerDep, KeyHolder, in_queue, of_model, tagged_router
from app.schemas.history import ApprovalRequest
from app.schemas.shadow import EndShadow, ShadowEndInfo, ShadowInfo, Shadows
from app.serving.shadowing import Shadowing
from app.serving.work_queue import WorkQueue
from dosel.errors import ApprovalsMissing
from dosel.usecases import UseCase

CHANGE_SECONDS = 60.0
"""How long a request waits for a read of the data store, and for a decision."""

DISAGREEMENTS = 20

Action = Annotated[
    Literal["stop", "promote", "refuse"],
    Path(
        description="`stop` ends the shadow without a judgement; `promote` puts its version into Production, and "
        "`refuse` refuses it."
    ),
]


def router(use_cases: Sequence[UseCase], reads: WorkQueue) -> APIRouter:
    made = tagged_router("registry")
    # Each takes the model's lock, so that more threads would only wait for each other.
    changes = WorkQueue("decisions on shadows", 1, 7, CHANGE_SECONDS)

    @made.get(
        "/use-cases/{name}/shadow",
        summary="The versions in shadow, and what live rows showed of them",
        responses=documented(404, 422, 503),
    )
    @in_queue(reads)
    def show_shadows(
        name: Annotated[str, Path(description="Name of the use case.")], request: Request, follower: FollowerDep
    ) -> Shadows:
        """You may check the evidence as often as you like: it stays valid."""
        from dosel.monitor.shadow_state import states
        from dosel.warehouse.shadow_answers import disagreements

        shadowing: Shadowing = request.app.state.shadowing
        slot = shadowing.slot(follower.named(name))
        found = states(slot.use_case, follower.registry().ledger, shadowing.engine, for_readers=True)
        return Shadows(
            shadows=[
                ShadowInfo.of(
                    state,
                    slot,
                    disagreements(shadowing.engine, state.shadow.model, state.shadow.number, DISAGREEMENTS),
                )
                for state in found
            ]
        )

    @made.post(
        "/models/{name}/shadow/{action}",
        summary="End a shadow by hand",
        responses={**documented(400, 401, 403, 404, 408, 409, 413, 422, 503), 202: {"model": ApprovalRequest}},
        response_model=ShadowEndInfo,
    )
    @in_queue(changes)
    def end_shadow(
        name: str, action: Action, body: EndShadow, holder: KeyHolder, request: Request, follower: FollowerDep
    ) -> ShadowEndInfo | JSONResponse:
        """The ledger gets the evidence so far.

        If the use case declares that more people must agree to a promotion, the answer is 202 with the request.
        """
        from dosel.monitor.shadowing import end_by_hand

        shadowing: Shadowing = request.app.state.shadowing
        slot = shadowing.slot(of_model(name, use_cases))
        actor = f"API key {holder}"
        registry, engine = follower.registry(), shadowing.engine
        try:
            end = end_by_hand(slot.use_case, registry, engine, body.role, action, actor, body.reason, holder)
        except ApprovalsMissing as missing:
            return waiting(slot.use_case, registry, missing)
        return ShadowEndInfo.of(slot.use_case, end)

    return made
