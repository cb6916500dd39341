"""The health of the version in Production. Plain `def`, since these calls wait for the data store."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, HTTPException, Path

from app.http.problems import documented
from app.routes.dependencies import FollowerDep
from app.schemas.health import HealthInfo
from dosel.errors import UnknownUseCase
from dosel.rows.validation import cut
from dosel.settings import Settings
from dosel.usecases import UseCase

if TYPE_CHECKING:
    from dosel.monitor.truths import TruthStore


def router(use_cases: Sequence[UseCase], settings: Settings) -> APIRouter:
    made = APIRouter(tags=["health"])
    named = {use_case.name: use_case for use_case in use_cases}

    @cache
    def truths() -> "TruthStore":
        from dosel.db.engine import connect
        from dosel.monitor.truths import TruthStore

        return TruthStore(connect(settings.warehouse_url))

    @made.get(
        "/use-cases/{name}/health",
        summary="Whether the version in Production is still as good as the gate found",
        responses=documented(404, 503),
    )
    def show_health(
        name: Annotated[str, Path(description="Name of the use case.")], follower: FollowerDep
    ) -> HealthInfo:
        """Accuracy and each class's recall on labelled live rows, against the held-out rows of the gate.

        You may look at the state and the bounds as often as you like. A false `harmed` has at most the declared
        probability (`alpha`), over all looks, metrics and versions together.
        """
        from dosel.monitor.health import health

        if name not in named:
            raise UnknownUseCase(f"no use case {cut(name)!r}; there are: {', '.join(named)}")
        found = health(named[name], follower.registry().ledger, truths())
        if found is None:
            raise HTTPException(404, f"{name}: nothing was in Production yet")
        return HealthInfo.model_validate(found)

    return made
