"""A Dask cluster of real processes on this machine, started as on several machines; its processes can be killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.installation import HOST, ROOT, free_port, wait_until
from dosel.cluster.connection import Cluster
from dosel.credentials import new_certificate
from dosel.settings import Settings

START_SECONDS = 90


class LocalDask:
    """A scheduler and workers whose logs are in `home`, where `settings` has its lake.

    Args:
        home: `DOSEL_HOME` of each process.
    """

    def __init__(self, home: Path, secure: bool = True) -> None:
        self.home = home
        certificate = new_certificate() if secure else ""
        address = f"{'tls' if secure else 'tcp'}://{HOST}:{free_port()}"
        self.settings = Settings(home=home, cluster=address, cluster_certificate=certificate, jobs=2)
        self.workers: list[psutil.Popen] = []
        self.scheduler: psutil.Popen | None = None
        self.environment = os.environ | {
            "DOSEL_HOME": str(home),
            "DOSEL_CLUSTER": address,
            "DOSEL_CLUSTER_CERTIFICATE": certificate,
            "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))),
        }

    def start_scheduler(self) -> None:
        self.scheduler = self._start("scheduler", "--host", HOST, "--no-dashboard")

    def start_worker(self, *options: str, **environment: str) -> psutil.Popen:
        """Start one more worker, without waiting for it."""
        worker = self._start("worker", "--host", HOST, "--no-dashboard", *options, **environment)
        self.workers.append(worker)
        return worker

    def wait_for_workers(self, count: int) -> None:
        """Wait until that many workers are at the scheduler."""
        with Cluster(self.settings) as cluster:
            wait_until(lambda: cluster.cores() == count, START_SECONDS, lambda: f"{count} workers")

    def kill_worker(self, index: int = 0) -> None:
        """Kill the process that runs a worker's tasks, and the nanny that would start it again."""
        kill(self.workers.pop(index))

    def kill_scheduler(self) -> None:
        assert self.scheduler is not None
        kill(self.scheduler)
        self.scheduler = None

    def restart(self) -> None:
        """Kill everything, and start the scheduler and as many workers again, without waiting for them.

        Workers end by themselves without their scheduler, and Compose starts them again: this does not wait for it.
        """
        count = len(self.workers)
        self.stop()
        self.workers.clear()
        self.start_scheduler()
        for _ in range(count):
            self.start_worker()

    def stop(self) -> None:
        """Kill everything."""
        for process in (*self.workers, *([self.scheduler] if self.scheduler else ())):
            kill(process)

    def _start(self, part: str, *options: str, **environment: str) -> psutil.Popen:
        with (self.home / f"{part}.log").open("ab") as log:
            return psutil.Popen(
                [sys.executable, "-m", "dosel", "cluster", part, "--", *options],
                env=self.environment | environment,
                cwd=self.home,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def kill(process: psutil.Popen) -> None:
    """Kill a process of its own session, and its children."""
    if process.is_running():
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def local_dask(home: Path, workers: int, secure: bool = True) -> Iterator[LocalDask]:
    """A running cluster with that many workers of one thread each."""
    dask = LocalDask(home, secure)
    try:
        dask.start_scheduler()
        for _ in range(workers):
            dask.start_worker()
        dask.wait_for_workers(workers)
        yield dask
    finally:
        dask.stop()
