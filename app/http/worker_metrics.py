"""The metrics of several worker processes as one, by files that each worker writes (prometheus-client's multiprocess
mode).

Counters and histograms are summed, those of ended workers included. Of gauges, only running workers count.
"""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that prometheus-client reads when it is imported: the folder of the workers' files."""

SUMMED = frozenset({"dosel_prediction_log_waiting", "dosel_shadow_waiting"})
"""Gauges that are added up over the workers; of the others, the highest counts."""

GONE = -inf
"""The value of a gauge whose labels do not exist any more: prometheus-client cannot remove one from a file."""

SECONDS = 1.0
"""Pause between two copies of a worker's state."""


@contextmanager
def shared_folder(workers: int) -> Iterator[None]:
    """Have the workers that start in this block share their metrics, if there is more than one.

    The folder is new, so that no figure of an earlier start counts.
    """
    os.environ.pop(FOLDER, None)
    if workers < 2:
        yield
        return
    with TemporaryDirectory(prefix="dosel-metrics-") as folder:
        os.environ[FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER]


def is_shared() -> bool:
    """Whether this process is one of several workers."""
    return FOLDER in os.environ


class AllWorkers(Collector):
    """The metrics of all workers."""

    def __init__(self) -> None:
        self._folder = os.environ[FOLDER]
        self._files = MultiProcessCollector(None, self._folder)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        for file in Path(self._folder).glob("gauge_live*_*.db"):
            pid = int(file.stem.rpartition("_")[2])
            if not psutil.pid_exists(pid):
                mark_process_dead(pid, self._folder)  # type: ignore[no-untyped-call]
        for metric in self._files.collect():  # type: ignore[no-untyped-call]
            metric.samples = [sample for sample in metric.samples if sample.value != GONE]
            yield metric


class SharedState:
    """Copies what a collector says of this worker to the files that all workers read."""

    def __init__(self, state: Collector) -> None:
        self._state = state
        # A registry that nobody reads: `AllWorkers` has these figures from the files.
        self._registry = CollectorRegistry()
        self._metrics: dict[str, Gauge | Counter] = {}
        self._copied: dict[tuple[str, tuple[str, ...]], float] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def copy(self) -> None:
        """Copy the state as it is now."""
        now: dict[tuple[str, tuple[str, ...]], float] = {}
        for family in self._state.collect():
            for sample in family.samples:
                key = family.name, tuple(sample.labels.values())
                now[key] = sample.value
                match self._shared(family, tuple(sample.labels), key[1]):
                    case Counter() as counter:
                        counter.inc(sample.value - self._copied.get(key, 0.0))
                    case Gauge() as gauge:
                        gauge.set(sample.value)
        for name, labels in self._copied.keys() - now.keys():
            match _child(self._metrics[name], labels):
                case Gauge() as gauge:
                    gauge.set(GONE)
        self._copied = now

    def _run(self) -> None:
        self.copy()
        while not self._stopped.wait(SECONDS):
            self.copy()

    def _shared(self, family: Metric, names: tuple[str, ...], labels: tuple[str, ...]) -> Gauge | Counter:
        name = family.name
        if name not in self._metrics:
            if family.type == "counter":
                self._metrics[name] = Counter(name, family.documentation, names, registry=self._registry)
            else:
                self._metrics[name] = Gauge(
                    name,
                    family.documentation,
                    names,
                    registry=self._registry,
                    multiprocess_mode="livesum" if name in SUMMED else "livemax",
                )
        return _child(self._metrics[name], labels)


def _child(metric: Gauge | Counter, labels: tuple[str, ...]) -> Gauge | Counter:
    return metric.labels(*labels) if labels else metric
