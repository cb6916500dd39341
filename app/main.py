"""The app, made by a factory: `uvicorn --factory app.main:create_app`."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app import problems
from app.docs import Api, add_docs_page
from app.fastlane import FastLane
from app.layers import AccessLines, Keys, Layer, RequestIds, SecurityHeaders, Shedding
from app.limits import JsonUnlessToldOtherwise, LimitedBodies
from app.logs import AccessLog, write_json
from app.metrics import Counted, Metrics
from app.recording import PredictionLog
from app.routes import batch, batches, explain, models, predict, registry, service
from app.serving import Serving
from dosel.errors import SettingsError
from dosel.settings import Settings
from dosel.usecases import ALL, DEFAULT, UseCase

if TYPE_CHECKING:
    from dosel.warehouse import PredictionStore

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
            _ = settings.promoters, settings.askers
        except SettingsError as error:
            raise SystemExit(f"prediction API: {error}") from None
        write_json()
    # Set before mlflow is imported, which is later and in another thread: the app answers before that.
    for name, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        return build_app(settings, Serving(settings, ALL), ALL, DEFAULT)
    except SettingsError as error:
        raise SystemExit(f"prediction API: {error}") from None


def build_app(settings: Settings, serving: Serving, use_cases: Sequence[UseCase], default: UseCase) -> FastAPI:
    """The app over a `Serving`, which it starts and stops.

    Args:
        default: the use case that a bare `POST /predict` means.
    """

    record = PredictionLog(settings.prediction_log, lambda: _open_log(settings))
    metrics = Metrics(serving, record)
    access_log = AccessLog()
    layers = stack(settings, serving, use_cases, default, record, metrics, access_log)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        serving.start()
        record.start()
        yield
        serving.stop()
        record.stop()
        access_log.flush()

    # A body without a content type is read as JSON; one that says it is something else is answered 415.
    app = Api([layer for _, layer in layers], lifespan=lifespan, strict_content_type=False)
    app.state.serving = serving
    app.state.promoters = settings.promoters
    app.state.record = record
    app.state.metrics = metrics
    app.add_middleware(JsonUnlessToldOtherwise)
    app.add_middleware(LimitedBodies, limit=batch.limits(settings, use_cases))
    problems.install(app)
    app.include_router(predict.router(use_cases, default))
    app.include_router(batch.router(use_cases))
    app.include_router(explain.router(use_cases, settings))
    app.include_router(models.router(use_cases, default))
    app.include_router(registry.router(use_cases))
    app.include_router(batches.router(use_cases, settings))
    app.include_router(service.router())
    add_docs_page(app)
    return app


def stack(
    settings: Settings,
    serving: Serving,
    use_cases: Sequence[UseCase],
    default: UseCase,
    record: PredictionLog,
    metrics: Metrics,
    access_log: AccessLog,
) -> list[tuple[str, Layer]]:
    """What every request passes through before the framework sees it, by name, outermost first."""
    # Read now: a key that makes no sense ends the start, not the first request.
    askers = settings.askers
    layers: list[tuple[str, Layer]] = [
        ("request ids", RequestIds),
        ("access log", lambda app: AccessLines(app, access_log)),
        ("metrics", lambda app: Counted(app, metrics)),
        ("security headers", SecurityHeaders),
        ("shedding", lambda app: Shedding(app, settings.queue_depth, metrics.shed)),
        ("keys and rates", lambda app: Keys(app, askers, settings.rate_limit)),
        ("fast lane", lambda app: FastLane(app, serving, use_cases, default, settings.max_body_bytes, record)),
    ]
    if origins := [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]:
        # Outside of the keys: a browser asks whether it may ask without showing one.
        layers.insert(4, ("cors", lambda app: CORSMiddleware(app, origins, allow_methods=["*"], allow_headers=["*"])))
    return layers


def _open_log(settings: Settings) -> "PredictionStore":
    from dosel.warehouse import PredictionStore, connect

    return PredictionStore(connect(settings.warehouse_url))
