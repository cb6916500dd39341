"""The OpenAPI document and the page that shows it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

import dosel
from app.http.middleware import Middleware
from app.http.problems import as_problems

DESCRIPTION = """
Answers with the model that is in Production, and says which one that was.

1. `GET /readyz` says whether a model answers yet, and what it waits for.
2. `POST /predict` takes one row: open it below, press *Try it out*, then *Execute*. The example is a real row.
3. `POST /explain/…` takes the same row and says why the model answers so.
4. `GET /use-cases` lists every field with its unit, bounds and choices; `GET /models` what is registered.

Errors are problem documents (RFC 9457, `application/problem+json`) that say what was wrong and where.
"""

TAGS = [
    {"name": "predict", "description": "One row in, one answer out."},
    {"name": "explain", "description": "Why the model answered so."},
    {"name": "models", "description": "What is registered, what is in Production, what is loaded here."},
    {"name": "registry", "description": "What was in Production when and why; moving it, and back."},
    {"name": "batches", "description": "What came in, and what of it was refused."},
    {"name": "service", "description": "Whether this service lives, and whether it can answer."},
]

ASSETS_PATH = "/docs/assets"


class Api(FastAPI):
    """An app whose every error is documented as a problem document.

    Args:
        middleware: what every request passes through, outermost first, before the framework sees it.
    """

    def __init__(self, middleware: Sequence[Middleware] = (), **kwargs: Any) -> None:
        self._middleware = middleware
        super().__init__(
            title="dosel",
            version=dosel.__version__,
            description=DESCRIPTION,
            openapi_tags=TAGS,
            docs_url=None,
            redoc_url=None,
            **kwargs,
        )

    def build_middleware_stack(self) -> ASGIApp:
        # Outside of all that is Starlette's, so that the answer to a fault of ours passes through them, too.
        app = super().build_middleware_stack()
        for middleware in reversed(self._middleware):
            app = middleware(app)
        return app

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = as_problems(super().openapi())
        return self.openapi_schema


def add_docs_page(app: FastAPI) -> None:
    """Adds `/docs`, with Swagger UI from this machine: it works without the internet, and tells nobody."""
    app.mount(ASSETS_PATH, StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static"))
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="dosel",
        swagger_ui_parameters={"defaultModelsExpandDepth": 0, "displayRequestDuration": True},
        swagger_js_url=f"{ASSETS_PATH}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS_PATH}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS_PATH}/favicon.png",
    )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return page
