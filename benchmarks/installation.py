"""Servers and models for the benchmarks, in temporary folders."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TypeVar

import httpx
import psutil

from dosel.embedded.guard import guarded
from dosel.embedded.local_servers import LocalServer
from dosel.errors import ProgramMissing
from dosel.pipeline import Pipeline
from dosel.settings import Settings
from dosel.sources import Batch
from dosel.usecases import Family, UseCase
from dosel.usecases.covertype import COVERTYPE
from external.columns import as_words
from external.generator import generate

ROOT = Path(__file__).resolve().parent.parent
ROWS = 7_000
HOST = "127.0.0.1"

Server = TypeVar("Server", bound=LocalServer)


class Mlflow:
    """An MLflow server on its own port, which can be stopped and started again."""

    def __init__(self, home: Path, records: str, artifacts: str, environment: dict[str, str]) -> None:
        port = free_port()
        self.url = f"http://{HOST}:{port}"
        self._command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", records, "--artifacts-destination", artifacts),
        ]
        self._environment = os.environ | environment
        self._log = home / "mlflow.log"

    @contextmanager
    def running(self) -> Iterator[psutil.Process]:
        with process(self._command, self._environment, f"{self.url}/health", self._log) as (running, _):
            yield running


@dataclass(frozen=True)
class Behind:
    """The stores of an installation: rows, MLflow's records and artifacts, and their keys."""

    warehouse_url: str
    records: str
    artifacts: str
    environment: dict[str, str]


@dataclass(frozen=True)
class Installation:
    """A running MLflow with `versions` of covertype's model, and the settings to use it."""

    settings: Settings
    pipeline: Pipeline
    versions: tuple[int, ...]
    mlflow: Mlflow

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process of this installation."""
        return os.environ | {
            "DOSEL_HOME": str(self.settings.home),
            "DOSEL_WAREHOUSE_URL": self.settings.warehouse_url,
            "MLFLOW_TRACKING_URI": self.settings.tracking_uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def promote(self, version: int, reason: str = "a benchmark") -> None:
        registry = self.pipeline.registry
        registry.promote(registry.version(COVERTYPE.model_name, version), "benchmark", reason)


@contextmanager
def installation(*forests: tuple[int, int], behind: Behind | None = None) -> Iterator[Installation]:
    """Train a forest for each (trees, depth) on generated rows; the first one is in Production.

    Args:
        behind: servers to use instead of files.
    """
    with TemporaryDirectory(prefix="dosel-benchmark-") as name, ExitStack() as stack:
        home = Path(name)
        stores = behind or Behind(
            f"sqlite:///{home / 'warehouse.db'}", f"sqlite:///{home / 'mlflow.db'}", str(home / "files"), {}
        )
        os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
        mlflow = Mlflow(home, stores.records, stores.artifacts, stores.environment)
        stack.enter_context(mlflow.running())
        settings = Settings(home=home, tracking_uri=mlflow.url, warehouse_url=stores.warehouse_url, jobs=2)
        rows = as_words(generate(ROWS, seed=1), first_class=1)
        versions = []
        for trees, depth in forests:
            pipeline = Pipeline(_searching(trees, depth), settings)
            pipeline.ingest(_Once(rows))
            versions.append(pipeline.register(pipeline.train()))
        made = Installation(settings, pipeline, tuple(versions), mlflow)
        made.promote(versions[0])
        yield made


@contextmanager
def local_server(kind: type[Server]) -> Iterator[Server]:
    """A MariaDB or MinIO that keeps what it committed; it stops with this process."""
    with TemporaryDirectory(prefix="dosel-benchmark-") as name, guarded(Path(name)):
        try:
            server = kind(Path(name), os.environ)
        except ProgramMissing as error:
            raise SystemExit(str(error)) from None
        server.start()
        yield server


@contextmanager
def process(
    command: list[str], environment: dict[str, str], healthy: str, log: Path, seconds: float = 180
) -> Iterator[tuple[psutil.Process, float]]:
    """A process that answers at `healthy`, and the seconds until it did; stopped after the block."""
    with log.open("wb") as output:
        began = time.perf_counter()
        started = _start(command, environment, output)
        try:

            def describe() -> str:
                return f"{' '.join(command)}\n{log.read_text()[-3000:]}"

            wait_until(lambda: started.poll() is not None or answers(healthy), seconds, describe)
            if started.poll() is not None:
                raise SystemExit(f"ended by itself: {describe()}")
            yield psutil.Process(started.pid), time.perf_counter() - began
        finally:
            _end(started)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False


def wait_until(true: Callable[[], bool], seconds: float, describe: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds:g} s in vain: {describe()}")
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def resident_mb(process: psutil.Process) -> float:
    """Memory of a process and its children."""
    everyone = [process, *process.children(recursive=True)]
    return sum(p.memory_info().rss for p in everyone) / 1e6


def _start(command: list[str], environment: dict[str, str], output: IO[bytes]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)


def _end(started: "subprocess.Popen[bytes]") -> None:
    family = psutil.Process(started.pid).children(recursive=True) if started.poll() is None else []
    started.terminate()
    try:
        started.wait(timeout=15)
    except subprocess.TimeoutExpired:
        started.kill()
    for child in family:
        if child.is_running():
            child.kill()


def _searching(trees: int, depth: int) -> UseCase:
    forest = COVERTYPE.families[0].build
    return replace(
        COVERTYPE, families=(Family("random_forest", forest, {"n_estimators": (trees,), "max_depth": (depth,)}),)
    )


class _Once:
    """A source of one batch."""

    def __init__(self, rows: list[list[str]]) -> None:
        self._left = [Batch("http://benchmark.test", "benchmark", "1", 1, rows, "uci")]

    def next_batch(self) -> Batch | None:
        return self._left.pop() if self._left else None
