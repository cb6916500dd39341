"""Model cards: calls that wait for MLflow and the data store."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from app.http.problems import documented
from app.routes.dependencies import FollowerDep, in_queue, of_model, tagged_router
from app.schemas.card import CardInfo
from app.schemas.history import VersionNumber
from app.serving.work_queue import WorkQueue
from dosel.usecases import UseCase

if TYPE_CHECKING:
    # Importing it takes a while, in which the app can already answer /healthz.
    from dosel.registry.card import Card

CardFormat = Literal["md", "json", "cyclonedx"]
MARKDOWN, CYCLONEDX = "text/markdown", "application/vnd.cyclonedx+json"


def router(use_cases: Sequence[UseCase], reads: WorkQueue) -> APIRouter:
    made = tagged_router("registry")

    @made.get(
        "/models/{name}/versions/{version}/card",
        summary="A version's model card: intended use, figures with intervals, limits, lineage",
        responses={**documented(404, 422, 503), 200: {"content": {MARKDOWN: {}, CYCLONEDX: {}}}},
        response_model=CardInfo,
    )
    @in_queue(reads)
    def show_card(
        name: str,
        version: Annotated[VersionNumber, Path(description="Its number.")],
        request: Request,
        follower: FollowerDep,
        format: Annotated[
            CardFormat | None,
            Query(description="By default the format that the header Accept names, or else JSON."),
        ] = None,
    ) -> Response:
        """As JSON, as Markdown, or as a CycloneDX 1.6 ML-BOM. For a closed use case, figures of few rows are
        withheld."""
        use_case = of_model(name, use_cases)
        registry = follower.registry()
        card = registry.card(use_case, registry.version(use_case.model_name, version))
        return _written(card, format or _format(request.headers.get("accept", "")))

    return made


def _format(accepted: str) -> CardFormat:
    if MARKDOWN in accepted:
        return "md"
    return "cyclonedx" if CYCLONEDX in accepted else "json"


def _written(card: "Card", format: CardFormat) -> Response:
    from dosel.registry.card_formats import as_cyclonedx, as_json, as_markdown

    if format == "md":
        return Response(as_markdown(card), media_type=f"{MARKDOWN}; charset=utf-8")
    if format == "cyclonedx":
        return Response(json.dumps(as_cyclonedx(card)), media_type=CYCLONEDX)
    return JSONResponse(as_json(card))
