"""Servers and models for the benchmarks, in temporary folders."""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import httpx
import psutil

from dosel.embedded.guard import guarded
from dosel.embedded.local_servers import LocalServer
from dosel.embedded.preflight import free_ports
from dosel.errors import ProgramMissing
from dosel.pipeline import Pipeline
from dosel.settings import Settings
from dosel.sources.base import Batch
from dosel.usecases import Family, UseCase
from dosel.usecases.covertype import COVERTYPE
from external.columns import as_words
from external.generator import generate

ROOT = Path(__file__).resolve().parent.parent
ROWS = 7_000
HOST = "127.0.0.1"

Rows = list[list[str]]
T = TypeVar("T")
Server = TypeVar("Server", bound=LocalServer)


@dataclass(frozen=True)
class Servers:
    """The servers of an installation: the data store, MLflow's database and artifacts, and their keys."""

    warehouse_url: str
    records: str
    artifacts: str
    environment: dict[str, str]


class Mlflow:
    """An MLflow server on its own port, which can be stopped and started again. Its data is in files by default."""

    def __init__(self, home: Path, behind: Servers | None = None) -> None:
        os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
        port = free_port()
        self.url = f"http://{HOST}:{port}"
        records = behind.records if behind else f"sqlite:///{home / 'mlflow.db'}"
        artifacts = behind.artifacts if behind else str(home / "files")
        self._command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", records, "--artifacts-destination", artifacts),
        ]
        self._environment = os.environ | (behind.environment if behind else {})
        self._log = home / "mlflow.log"

    @contextmanager
    def running(self) -> Iterator[psutil.Process]:
        with process(self._command, self._environment, f"{self.url}/health", self._log) as (running, _):
            yield running


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
def installation(*forests: tuple[int, int], behind: Servers | None = None) -> Iterator[Installation]:
    """Train a forest for each (trees, depth) on generated rows; the first one is in Production.

    Args:
        behind: servers to use instead of files.
    """
    with TemporaryDirectory(prefix="dosel-benchmark-") as name, ExitStack() as stack:
        home = Path(name)
        mlflow = Mlflow(home, behind)
        stack.enter_context(mlflow.running())
        warehouse_url = behind.warehouse_url if behind else ""
        settings = Settings(home=home, tracking_uri=mlflow.url, warehouse_url=warehouse_url, jobs=2)
        rows = as_words(generate(ROWS, seed=1), first_class=1)
        versions = []
        for trees, depth in forests:
            pipeline = Pipeline(_searching(trees, depth), settings)
            pipeline.ingest(OneByOne([lambda: rows]))
            versions.append(pipeline.register(pipeline.train()))
        made = Installation(settings, pipeline, tuple(versions), mlflow)
        made.promote(versions[0])
        yield made


@contextmanager
def local_server(kind: type[Server]) -> Iterator[Server]:
    """A MariaDB or MinIO with durable writes, which stops with this process."""
    with TemporaryDirectory(prefix="dosel-benchmark-") as name, guarded(Path(name)):
        try:
            server = kind(Path(name), os.environ)
        except ProgramMissing as error:
            raise SystemExit(str(error)) from None
        server.start()
        yield server


@contextmanager
def process(
    command: list[str], environment: dict[str, str], healthy: str, log: Path, seconds: float = 180, cwd: Path = ROOT
) -> Iterator[tuple[psutil.Process, float]]:
    """Run a process; yield it and the seconds until `healthy` answered, and stop it after the block."""
    with log.open("wb") as output:
        began = time.perf_counter()
        started = subprocess.Popen(command, cwd=cwd, env=environment, stdout=output, stderr=subprocess.STDOUT)
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
    return free_ports(1)[0]


def new_environment(folder: Path, *packages: str) -> Path:
    """The Python of a new environment in `folder` with these packages.

    Raises:
        CalledProcessError, TimeoutExpired: they cannot be installed.
    """
    python = folder / "bin" / "python"
    uv = (sys.executable, "-m", "uv")
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), *packages], check=True, timeout=600)
    return python


def in_a_process(task: Callable[..., T], *args: Any) -> T:
    """Run a task in a new process, so that its peak memory is the task's own, and return the result."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(task, *args).result()


def peak_mb() -> float:
    """Peak memory of this process."""
    # getrusage is not used, since a process inherits its maximum from the parent.
    kib = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert kib is not None
    return int(kib[1]) / 1024


def parsed(parser: argparse.ArgumentParser, field: str, known: Collection[str]) -> argparse.Namespace:
    """The arguments of this process; an unknown name in the list `field` is an error."""
    asked = parser.parse_args()
    if unknown := set(getattr(asked, field)) - set(known):
        parser.error(f"there is no {', '.join(unknown)}; there are: {', '.join(known)}")
    return asked


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def resident_mb(process: psutil.Process) -> float:
    """Memory of a process and its children."""
    everyone = [process, *process.children(recursive=True)]
    return sum(p.memory_info().rss for p in everyone) / 1e6


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


class OneByOne:
    """A source whose batches are created or read on demand."""

    def __init__(self, batches: Sequence[Callable[[], Rows]]) -> None:
        self._batches = batches
        self._given = 0

    def next_batch(self) -> Batch | None:
        if self._given == len(self._batches):
            return None
        self._given += 1
        return Batch("http://benchmark.test", "benchmark", "1", self._given, self._batches[self._given - 1](), "uci")
