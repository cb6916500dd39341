"""The app, made by a factory: `uvicorn --factory app.main:create_app`."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import problems
from app.docs import Api, add_docs_page
from app.limits import JsonUnlessToldOtherwise, LimitedBodies
from app.routes import batches, models, predict, service
from app.serving import Serving
from dosel.errors import SettingsError
from dosel.settings import Settings
from dosel.usecases import ALL, DEFAULT, UseCase

MLFLOW_DEFAULTS = {
    # A request of ours waits for these; MLflow's own defaults would have it wait for minutes.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def create_app(settings: Settings | None = None) -> FastAPI:
    """The app these settings ask for, or else this process's environment."""
    if settings is None:
        try:
            settings = Settings.load()
        except SettingsError as error:
            raise SystemExit(f"prediction API: {error}") from None
    # Set before mlflow is imported, which is later and in another thread: the app answers before that.
    for name, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    return build_app(settings, Serving(settings, ALL), ALL, DEFAULT)


def build_app(settings: Settings, serving: Serving, use_cases: Sequence[UseCase], default: UseCase) -> FastAPI:
    """The app over a `Serving`, which it starts and stops.

    Args:
        default: the use case that a bare `POST /predict` means.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        serving.start()
        yield
        serving.stop()

    # A body without a content type is read as JSON; one that says it is something else is answered 415.
    app = Api(lifespan=lifespan, strict_content_type=False)
    app.state.serving = serving
    app.add_middleware(JsonUnlessToldOtherwise)
    app.add_middleware(LimitedBodies, limit=settings.max_body_bytes)
    problems.install(app)
    app.include_router(predict.router(use_cases, default))
    app.include_router(models.router(use_cases, default))
    app.include_router(batches.router(use_cases, settings))
    app.include_router(service.router())
    add_docs_page(app)
    return app
