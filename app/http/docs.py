"""The OpenAPI document and the page that shows it."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import dosel
from app.http.middleware import Middleware
from app.http.problems import as_problems

DESCRIPTION = """
Predicts with the model in Production and names the version that answered.

1. `GET /readyz` says whether a model answers, and what the API is waiting for.
2. `POST /predict` takes one row: open it below, press *Try it out*, then *Execute*. The example is a real row.
3. `POST /explain/…` takes the same row and explains the answer.
4. `GET /use-cases` lists every field with its unit, bounds and choices; `GET /models` lists the registered models.

Errors are problem documents (RFC 9457, `application/problem+json`) that name the wrong field and what was expected.
"""

TAGS = [
    {"name": "predict", "description": "Predictions for one row or for many."},
    {"name": "explain", "description": "The reasons for an answer."},
    {"name": "feedback", "description": "The true classes of answered rows."},
    {"name": "models", "description": "Registered models, Production, and the loaded versions."},
    {
        "name": "registry",
        "description": "Moves of Production and what they rest on: the promotion ledger, promotions, rollbacks, "
        "approvals, shadows, comparisons and model cards.",
    },
    {"name": "batches", "description": "Ingested batches and refused rows."},
    {"name": "health", "description": "Whether the version in Production is still as good as the gate found."},
    {"name": "events", "description": "Records for people, such as a promotion or a failed task."},
    {"name": "service", "description": "Whether this service is alive and ready."},
]

ASSETS_PATH = "/docs/assets"


class Api(FastAPI):
    """A FastAPI app whose errors are documented as problem documents.

    Args:
        middleware: middleware outside FastAPI's own, outermost first.
        direct: routes of `POST` that come before FastAPI's own middleware and routing, which take longer than a model.
        add_examples: adds examples to the OpenAPI document.
    """

    def __init__(
        self,
        middleware: Sequence[Middleware] = (),
        direct: Sequence[Route] = (),
        add_examples: Callable[[dict[str, Any]], None] = lambda _: None,
        **kwargs: Any,
    ) -> None:
        self._middleware = middleware
        self._add_examples = add_examples
        self._direct = {route.path: route for route in direct}
        super().__init__(
            title="dosel",
            version=dosel.__version__,
            description=DESCRIPTION,
            openapi_tags=TAGS,
            # `add_docs_page` adds these.
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            **kwargs,
        )

    def build_middleware_stack(self) -> ASGIApp:
        # Outside Starlette's own middleware, so that answers to unexpected exceptions pass through it, too.
        framework, direct = super().build_middleware_stack(), self._direct

        async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
            route = direct.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
            if route is None:
                await framework(scope, receive, send)
            else:
                scope["route"] = route
                await route.app(scope, receive, send)

        app: ASGIApp = dispatch
        for middleware in reversed(self._middleware):
            app = middleware(app)
        return app

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = as_problems(super().openapi())
            self._add_examples(self.openapi_schema)
        return self.openapi_schema


def add_docs_page(app: FastAPI) -> None:
    """Add `/openapi.json`, and `/docs` with a local copy of Swagger UI: nothing is asked of a CDN."""
    app.mount(ASSETS_PATH, StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static"))
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="dosel",
        swagger_ui_parameters={"defaultModelsExpandDepth": 0, "displayRequestDuration": True},
        swagger_js_url=f"{ASSETS_PATH}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS_PATH}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS_PATH}/favicon.png",
    )

    @cache
    def document() -> bytes:
        return json.dumps(app.openapi()).encode()

    # Not async: making the document takes a second, in which other requests are answered.
    @app.get("/openapi.json", include_in_schema=False)
    def openapi() -> Response:
        return Response(document(), media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return page
