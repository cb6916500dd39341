"""Comparisons of versions: calls that load two models and read the held-out rows, one at a time."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query

from app.http.problems import documented
from app.routes.dependencies import FollowerDep, in_queue, of_model, tagged_router
from app.schemas.comparison import ComparisonInfo
from app.schemas.history import VersionNumber
from app.serving.memory import release_memory
from app.serving.work_queue import Pauses, WorkQueue
from dosel.settings import Settings
from dosel.usecases import UseCase

SECONDS = 120.0
"""How long a request waits for its comparison."""


def router(use_cases: Sequence[UseCase], settings: Settings, pauses: Pauses) -> APIRouter:
    made = tagged_router("registry")
    comparisons = WorkQueue("comparisons", 1, 3, SECONDS, pauses)

    @made.get(
        "/models/{name}/compare",
        summary="Two versions side by side, on the held-out rows that neither was trained on",
        responses=documented(401, 404, 409, 422, 503),
    )
    @in_queue(comparisons)
    def compare_versions(
        name: str,
        a: Annotated[VersionNumber, Query(description="The number of a version.")],
        b: Annotated[VersionNumber, Query(description="The number of another one.")],
        follower: FollowerDep,
    ) -> ComparisonInfo:
        """Takes seconds, and needs a key if predictions need one. This is no look of the gate: nothing is recorded."""
        from dosel.db.engine import connect
        from dosel.registry.side_by_side import compare
        from dosel.warehouse.batches import BatchStore

        use_case, registry = of_model(name, use_cases), follower.registry()
        use_case = replace(use_case, split=registry.holdout(use_case).split)
        rows = BatchStore(connect(settings.warehouse_url), use_case).clean_by_batch
        try:
            found = compare(registry, use_case, rows, (a, b), settings.seed)
            return ComparisonInfo.of(use_case, found)
        finally:
            release_memory()

    return made
