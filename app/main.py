"""Creates the app: `python -m app.server app.main:create_app`."""

import logging
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app.http import problems
from app.http.body_limits import FormsAsJson, RequestLimits
from app.http.clients import BehindProxies
from app.http.docs import Api, add_docs_page
from app.http.examples import add_examples
from app.http.logs import AccessLog, write_json
from app.http.metrics import Metrics
from app.http.middleware import Keys, Middleware, PromoteKeys, RequestRecord
from app.http.store_metrics import StoreMetrics
from app.routes import (
    approvals,
    bulk_predict,
    cards,
    comparisons,
    events,
    explain,
    feedback,
    health,
    ingested_batches,
    models,
    predict,
    registry,
    service,
    shadow,
)
from app.serving.answer_writer import AnswerWriter, DirectWriter
from app.serving.follower import ModelFollower
from app.serving.named_versions import NamedVersions
from app.serving.prediction_log import PredictionLog
from app.serving.shadow_scorer import DirectScorer, ScoringProcess, ShadowScorer
from app.serving.shadowing import Shadowing
from app.serving.work_queue import READING, Pauses, SharedCalls, WorkQueue
from app.serving.writing_process import WritingProcess
from dosel.errors import SettingsError, UnknownUseCase
from dosel.settings import Settings
from dosel.usecases import REFUSED, UseCase, adapted, chosen

log = logging.getLogger("uvicorn.error")

MLFLOW_DEFAULTS = {
    # Requests to the API wait for MLflow's client, whose own defaults are minutes.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

EXPOSED = ("X-Dosel-Request-ID", "X-Request-ID", "Retry-After")
"""Headers that scripts of another origin may read: feedback names the first, and 429 and 503 have the last."""

FAMILY_SECONDS = 30.0
"""How long a request waits for a family's version that is loaded for it."""

READ_SECONDS = 10.0
"""How long a request waits for a read of the data store or the registry."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The app for these settings.

    Args:
        settings: by default those of the environment; separate processes then write the prediction log and
            score rows in shadow.
    """
    alone = settings is None
    if settings is None:
        try:
            settings = Settings.load()
            _ = settings.key_holders
        except SettingsError as error:
            raise SystemExit(f"prediction API: {error}") from None
        write_json()
        for file in REFUSED:
            log.error("these use cases are not served: %s", file)
    # Set before mlflow is imported, which happens later in another thread, so that the app answers early.
    for name, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        use_cases = [adapted(use_case, settings) for use_case in chosen(settings.use_cases)]
        default = next((use_case for use_case in use_cases if use_case.default), None)
        writer = WritingProcess(settings.warehouse_url, settings.prediction_rows, use_cases) if alone else None
        scorer = ScoringProcess() if alone else None
        return build_app(settings, ModelFollower(settings, use_cases), use_cases, default, writer, scorer)
    except (SettingsError, UnknownUseCase) as error:
        raise SystemExit(f"prediction API: {error}") from None


def build_app(
    settings: Settings,
    follower: ModelFollower,
    use_cases: Sequence[UseCase],
    default: UseCase | None,
    writer: AnswerWriter | None = None,
    scorer: ShadowScorer | None = None,
) -> FastAPI:
    """The app with a `ModelFollower`, which it starts and stops.

    Args:
        default: the use case of `POST /predict`; without one, that path answers 503.
        writer: writes the prediction log; by default in a thread of this process.
        scorer: scores rows in shadow; by default in a thread of this process.
    """
    writer = writer or DirectWriter(settings.warehouse_url, settings.prediction_rows, use_cases)
    record = PredictionLog(settings.prediction_log, writer.answers)
    shadowing = Shadowing(settings, follower, use_cases, writer, scorer or DirectScorer())
    metrics = Metrics(follower, record, shadowing, StoreMetrics(use_cases, settings))
    access_log = AccessLog()
    pauses = Pauses(READING)
    middleware = stack(settings, use_cases, metrics, access_log)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Single rows are answered in this thread. Beside threads that work on bulk requests, it waits this long for
        # each turn; Python's default is ten times as long.
        sys.setswitchinterval(0.0005)
        follower.start()
        record.start()
        shadowing.start()
        metrics.start()
        yield
        metrics.stop()
        shadowing.stop()
        follower.stop()
        record.stop()
        writer.close()
        access_log.flush()

    app = Api(
        [layer for _, layer in middleware],
        predict.routes(use_cases, default, follower, record, shadowing, pauses),
        lambda document: add_examples(document, use_cases, default),
        lifespan=lifespan,
        # The framework's redirect would name the host that the client sent.
        redirect_slashes=False,
    )
    app.state.follower = follower
    app.state.record = record
    app.state.shadowing = shadowing
    app.state.named_versions = NamedVersions(settings, follower)
    app.state.family_loads = SharedCalls("loads of a family", FAMILY_SECONDS)
    app.state.metrics = metrics
    app.add_middleware(FormsAsJson)
    problems.install(app)
    # One thread for each queue: more would keep the interpreter's lock from the thread that answers single rows.
    store_reads = WorkQueue("reads of the data store", 1, 31, READ_SECONDS, pauses)
    registry_reads = WorkQueue("reads of the registry", 1, 31, READ_SECONDS, pauses)
    routers = (
        predict.router(use_cases, default),
        bulk_predict.router(use_cases, settings, pauses),
        feedback.router(use_cases, settings),
        explain.router(use_cases, settings),
        models.router(use_cases, default, bool(settings.predict_key_names), registry_reads, pauses),
        approvals.router(use_cases, store_reads),
        registry.router(use_cases, store_reads, registry_reads),
        cards.router(use_cases, registry_reads),
        comparisons.router(use_cases, settings, pauses),
        shadow.router(use_cases, store_reads),
        ingested_batches.router(use_cases, settings, store_reads),
        health.router(settings, pauses),
        events.router(use_cases, settings, store_reads),
        service.router(use_cases, settings),
    )
    for made in routers:
        app.router.routes.extend(made.routes)
    add_docs_page(app)
    return app


def stack(
    settings: Settings, use_cases: Sequence[UseCase], metrics: Metrics, access_log: AccessLog
) -> list[tuple[str, Middleware]]:
    """The middleware outside FastAPI, by name, outermost first."""
    # Read here, so that an invalid setting stops the start and not the first request.
    readers, scorers, promoters = settings.read_key_names, settings.predict_key_names, settings.promote_key_names
    proxies = settings.proxy_networks
    largest = bulk_predict.limits(settings, use_cases)
    closed = tuple(f"/use-cases/{use_case.name}/" for use_case in use_cases if not use_case.expose_training_rows)
    closed += ("/events",) if closed else ()
    # A comparison costs seconds of a core.
    closed += tuple(f"/models/{use_case.model_name}/compare" for use_case in use_cases)
    middleware: list[tuple[str, Middleware]] = [
        ("ids, logs, metrics and headers", lambda app: RequestRecord(app, access_log, metrics)),
        ("keys and rates", lambda app: Keys(app, readers, scorers, settings.rate_limit, closed)),
        ("keys of promoters", lambda app: PromoteKeys(app, promoters)),
        ("limits", lambda app: RequestLimits(app, settings, largest, metrics.shed)),
    ]
    if origins := [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]:
        # Outside the keys, since a browser's preflight request has none.
        middleware.insert(1, ("cors", lambda app: CORSMiddleware(app, origins, "*", "*", expose_headers=EXPOSED)))
    if proxies:
        middleware.insert(0, ("proxies", lambda app: BehindProxies(app, proxies)))
    return middleware
