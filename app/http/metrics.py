"""`/metrics` for Prometheus: counters of requests, the state of this process, and figures of the data store."""

import asyncio
import time
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from math import inf

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.http import worker_metrics
from app.http.store_metrics import StoreMetrics
from app.serving.follower import ModelFollower
from app.serving.prediction_log import PredictionLog
from app.serving.shadowing import Shadowing

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

PERIOD_SECONDS = 1.0
"""Least time between two texts, each of which costs tens of milliseconds; scrapes that come meanwhile wait, since
anybody may ask."""


class Metrics:
    """The metrics of this process, or of all workers if there are several, and those of the data store."""

    def __init__(
        self, follower: ModelFollower, record: PredictionLog, shadowing: Shadowing, store: StoreMetrics
    ) -> None:
        self._store = store
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "dosel_requests", "Requests answered.", ("route", "method", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "dosel_request_seconds", "Time to answer.", ("route",), buckets=BUCKETS, registry=self._registry
        )
        self._batch_rows = Counter("dosel_batch_rows", "Rows answered in bulk requests.", registry=self._registry)
        self._shed = Counter(
            "dosel_shed_requests", "Requests refused because the queue was full.", registry=self._registry
        )
        state = _State(follower, record, shadowing)
        self._shared = worker_metrics.SharedState(state) if worker_metrics.is_shared() else None
        self._answer = self._registry
        if self._shared:
            self._answer = CollectorRegistry()
            self._answer.register(worker_metrics.AllWorkers())
        else:
            self._answer.register(state)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics text")
        # By the hidden use cases: when rendering began, and the text.
        self._texts: dict[frozenset[str], tuple[float, asyncio.Task[bytes]]] = {}
        # A look-up of labels costs more than counting.
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def start(self) -> None:
        """Share this worker's state from now on, if there are several workers."""
        if self._shared:
            self._shared.start()

    def stop(self) -> None:
        if self._shared:
            self._shared.stop()

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        key = (route, method, status)
        if key not in self._known:
            self._known[key] = (self._requests.labels(route, method, str(status)), self._seconds.labels(route))
        requests, took = self._known[key]
        requests.inc()
        took.observe(seconds)

    def shed(self) -> None:
        self._shed.inc()

    def rows(self, count: int) -> None:
        self._batch_rows.inc(count)

    async def text(self, hidden: Collection[str] = ()) -> bytes:
        """All metrics as of now, without the data store's figures about the `hidden` use cases."""
        key, now = frozenset(hidden), time.monotonic()
        began, text = self._texts.get(key, (-inf, None))
        if text is None or text.done():
            begins = max(now, began + PERIOD_SECONDS)
            text = asyncio.create_task(self._rendered(key, begins - now))
            self._texts[key] = begins, text
        # A scrape that is given up does not end the rendering for the others.
        return await asyncio.shield(text)

    async def _rendered(self, hidden: Collection[str], wait: float) -> bytes:
        await asyncio.sleep(wait)
        await self._store.refresh()
        shown = self._store.shown(hidden)
        render = asyncio.get_running_loop().run_in_executor
        return await render(self._thread, lambda: generate_latest(self._answer) + generate_latest(shown))


class _State(Collector):
    """The state of the loaded models, the prediction log and the shadows, read when Prometheus asks."""

    def __init__(self, follower: ModelFollower, record: PredictionLog, shadowing: Shadowing) -> None:
        self._follower = follower
        self._record = record
        self._shadowing = shadowing

    def collect(self) -> Iterable[Metric]:
        version = GaugeMetricFamily("dosel_model_version", "Loaded version.", labels=("use_case", "model", "form"))
        fallback = GaugeMetricFamily(
            "dosel_model_fallback", "1 if scikit-learn answers instead of ONNX Runtime.", labels=("use_case",)
        )
        stale = GaugeMetricFamily(
            "dosel_model_stale", "1 if the registry could not confirm the loaded version.", labels=("use_case",)
        )
        swaps = CounterMetricFamily("dosel_model_swaps", "Versions loaded since the start.", labels=("use_case",))
        for use_case in self._follower.use_cases:
            name = use_case.name
            loaded = self._follower.loaded(use_case)
            if loaded is not None:
                backend = loaded.predictor.backend
                version.add_metric((name, use_case.model_name, backend), loaded.version.version)
                fallback.add_metric((name,), float(backend != "onnx"))
                stale.add_metric((name,), float(self._follower.stale(use_case)))
            swaps.add_metric((name,), self._follower.swaps(use_case))
        yield from (version, fallback, stale, swaps)
        dropped = CounterMetricFamily("dosel_prediction_log_dropped", "Answers dropped from the prediction log.")
        dropped.add_metric((), self._record.dropped)
        stored = CounterMetricFamily("dosel_prediction_log_stored", "Answers written to the prediction log.")
        stored.add_metric((), self._record.stored)
        waiting = GaugeMetricFamily("dosel_prediction_log_waiting", "Answers waiting to be written.")
        waiting.add_metric((), self._record.waiting)
        yield from (dropped, stored, waiting)
        yield from self._shadows()

    def _shadows(self) -> Iterable[Metric]:
        answered = CounterMetricFamily("dosel_shadow_answered", "Rows answered in shadow.", labels=("use_case",))
        dropped = CounterMetricFamily(
            "dosel_shadow_dropped",
            "Sampled rows that were not answered in shadow, because there was no time.",
            labels=("use_case",),
        )
        loaded = GaugeMetricFamily("dosel_shadow_loaded", "Versions that answer in shadow.", labels=("use_case",))
        for slot in self._shadowing.slots:
            name = (slot.use_case.name,)
            answered.add_metric(name, slot.answered)
            dropped.add_metric(name, slot.dropped)
            loaded.add_metric(name, len(slot.running))
        waiting = GaugeMetricFamily("dosel_shadow_waiting", "Rows waiting to be answered in shadow.")
        waiting.add_metric((), self._shadowing.waiting)
        yield from (answered, dropped, loaded, waiting)
