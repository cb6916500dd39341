"""Metrics of what the data store holds. A scrape waits for the data store only briefly."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from math import inf
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple, get_args

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dosel.closed import coarse, power_of_ten
from dosel.errors import DoselError
from dosel.settings import Settings
from dosel.usecases import UseCase

if TYPE_CHECKING:
    # Importing it takes a second, in which the app can already answer /healthz.
    from sqlalchemy import Engine

    from dosel.monitor.figures import Figures
    from dosel.monitor.shadow_state import ShadowState

FRESH_SECONDS = 15.0
"""How long figures are shown before the next scrape reads new ones."""

SCRAPE_SECONDS = 1.0
"""How long a scrape waits for new figures; after that it shows the last ones."""

HANGING_SECONDS = 10.0
"""A reading that takes longer counts as a data store that does not answer."""

log = logging.getLogger("uvicorn.error")


class _Read(NamedTuple):
    figures: "Figures"
    shadows: "Mapping[str, Sequence[ShadowState]]"


class StoreMetrics:
    """Keeps the last figures, and reads new ones in a thread. Every call must come from the event loop."""

    def __init__(self, use_cases: Sequence[UseCase], settings: Settings) -> None:
        self._use_cases = use_cases
        self._settings = settings
        self._engine: Engine | None = None
        self._figures: _Read | None = None
        self._read_at = self._began_at = -inf
        self._failed = False
        self._reading: Future[_Read | Exception] | None = None

    async def refresh(self) -> None:
        """Read new figures if the last ones are not fresh; wait for them no longer than a scrape may."""
        now = time.monotonic()
        if self._reading is None and now - self._began_at >= FRESH_SECONDS:
            self._reading, self._began_at = Future(), now
            Thread(target=self._read, args=(self._reading,), name="store metrics", daemon=True).start()
        if self._reading is not None:
            await asyncio.wait([asyncio.wrap_future(self._reading)], timeout=SCRAPE_SECONDS)
        # Another scrape may have waited for the same reading.
        if self._reading is not None and self._reading.done():
            self._take(self._reading.result())

    def shown(self, hidden: Collection[str]) -> Collector:
        """The metrics, without those of the `hidden` use cases; figures about rows of closed ones are coarse."""
        closed = {use_case.name for use_case in self._use_cases if not use_case.expose_training_rows}
        families = _families(self._figures, closed, hidden) if self._figures else ()
        return _Shown([*self._about_the_store(), *families])

    def _about_the_store(self) -> Iterator[Metric]:
        now = time.monotonic()
        hanging = self._reading is not None and now - self._began_at > HANGING_SECONDS
        if self._figures or self._failed or hanging:
            yield GaugeMetricFamily(
                "dosel_store_up", "1 if the data store answers.", value=float(not (self._failed or hanging))
            )
        if self._figures:
            text = "Seconds since the figures of the data store were read."
            yield GaugeMetricFamily("dosel_store_figures_age_seconds", text, value=now - self._read_at)

    def _read(self, reading: "Future[_Read | Exception]") -> None:
        try:
            from dosel.db.engine import connect
            from dosel.monitor.figures import read_figures
            from dosel.monitor.shadow_state import states
            from dosel.registry.ledger import PromotionLedger

            self._engine = self._engine or connect(self._settings.warehouse_url)
            ledger = PromotionLedger(self._engine)
            declared = [use_case for use_case in self._use_cases if use_case.gate.shadow is not None]
            shadows = {use_case.name: states(use_case, ledger, self._engine, for_readers=True) for use_case in declared}
            reading.set_result(_Read(read_figures(self._engine, self._use_cases, self._settings), shadows))
        except Exception as error:  # noqa: BLE001  a driver may raise whatever it likes, and the scrape waits for it
            # Returned as a value: asyncio would log an exception that no scrape awaits.
            reading.set_result(error)

    def _take(self, found: "_Read | Exception") -> None:
        self._reading = None
        if not isinstance(found, Exception):
            self._figures, self._read_at, self._failed = found, time.monotonic(), False
        elif not self._failed:
            self._failed = True
            why = str(found) if isinstance(found, DoselError) else f"{type(found).__name__}: {found}"
            log.warning("/metrics has no new figures of the data store: %s", why)


class _Shown(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(read: _Read, closed: Collection[str], hidden: Collection[str]) -> Iterator[Metric]:
    yield from _health(read.figures, closed, hidden)
    yield from _batches(read.figures, hidden)
    yield from _outbox(read.figures)
    yield from _shadows(read.shadows, closed, hidden)


def _health(figures: "Figures", closed: Collection[str], hidden: Collection[str]) -> Iterator[Metric]:
    from dosel.monitor.health import State

    version = ("use_case", "version")
    accuracy = GaugeMetricFamily(
        "dosel_accuracy",
        "Accuracy of the version in Production: promised by the gate, and live with its lower and upper bound.",
        labels=(*version, "bound"),
    )
    labels = GaugeMetricFamily("dosel_labels", "Labelled live rows of the version in Production.", labels=version)
    coverage = GaugeMetricFamily(
        "dosel_label_coverage", "Share of the logged answers whose true class is known.", labels=version
    )
    state = GaugeMetricFamily(
        "dosel_health_state", "1 for the state of the version in Production.", labels=(*version, "state")
    )
    for health in figures.healths:
        if health.use_case in hidden:
            continue
        key = (health.use_case, str(health.version))
        whole = health.findings[0]
        show: Callable[[float], float] = coarse if health.use_case in closed else float
        if whole.promised is not None:
            accuracy.add_metric((*key, "promised"), show(whole.promised.rate))
        if whole.live.total:
            for bound, value in (("live", whole.live.rate), ("low", whole.low), ("high", whole.high)):
                accuracy.add_metric((*key, bound), show(value))
        labels.add_metric(key, show(health.labels))
        if health.coverage.share is not None:
            coverage.add_metric(key, show(health.coverage.share))
        for name in get_args(State):
            state.add_metric((*key, name), float(health.state == name))
    yield from (accuracy, labels, coverage, state)


def _batches(figures: "Figures", hidden: Collection[str]) -> Iterator[Metric]:
    kinds = ("use_case", "outcome")
    batches = GaugeMetricFamily("dosel_batches", "Batches, by outcome: stored, or refused as a whole.", labels=kinds)
    rows = GaugeMetricFamily("dosel_rows", "Rows of the stored batches: clean, refused or duplicate.", labels=kinds)
    share = GaugeMetricFamily("dosel_refused_share", "Share of refused rows in the newest batch.", labels=("use_case",))
    for name, totals in figures.batches.items():
        if name in hidden:
            continue
        batches.add_metric((name, "stored"), totals.batches)
        batches.add_metric((name, "refused"), totals.refused_batches)
        rows.add_metric((name, "clean"), totals.rows_clean)
        rows.add_metric((name, "refused"), totals.rows_refused)
        rows.add_metric((name, "duplicate"), totals.rows_duplicate)
        share.add_metric((name,), totals.last_refused_share)
    yield from (batches, rows, share)


def _outbox(figures: "Figures") -> Iterator[Metric]:
    labels = ("target", "urgent")
    events = GaugeMetricFamily("dosel_outbox_events", "Events that a receiver has not accepted yet.", labels=labels)
    age = GaugeMetricFamily("dosel_outbox_age_seconds", "Age of the oldest of these events.", labels=labels)
    for waiting in figures.waiting:
        key = (waiting.target, str(waiting.urgent).lower())
        events.add_metric(key, waiting.events)
        age.add_metric(key, waiting.age)
    yield from (events, age)


def _shadows(
    shadows: "Mapping[str, Sequence[ShadowState]]", closed: Collection[str], hidden: Collection[str]
) -> Iterator[Metric]:
    version = ("use_case", "version", "role")
    labels = GaugeMetricFamily("dosel_shadow_labels", "Labelled live rows of a version in shadow.", labels=version)
    evidence = GaugeMetricFamily(
        "dosel_shadow_e_value",
        "Evidence that a version in shadow is `better` or `worse`; the value of `needed` proves it.",
        labels=(*version, "kind"),
    )
    for name, states in shadows.items():
        for state in states if name not in hidden else ():
            key, proof = (name, str(state.shadow.version), state.shadow.role), state.comparison.proof
            labels.add_metric(key, coarse(state.comparison.labels) if name in closed else state.comparison.labels)
            show = power_of_ten if name in closed else float
            evidence.add_metric((*key, "better"), show(proof.e_value))
            evidence.add_metric((*key, "worse"), show(proof.e_against))
            evidence.add_metric((*key, "needed"), proof.e_needed)
    yield from (labels, evidence)
