"""Trainings on a Dask cluster in which a worker, all workers, the scheduler or the driver is killed.

python -m tests.soak.cluster [--kills 50] [--seed 1]

Each training is begun by a process of its own. One kill comes at a drawn moment. What was killed is started again, as
Compose does, and a driver that failed is started again, as Airflow does. At the end each family must have each
candidate once, and the digest that a training in threads has.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient

from benchmarks.dask_cluster import LocalDask, kill, local_dask
from benchmarks.installation import ROOT, Mlflow, OneByOne, say
from dosel.model import tags
from dosel.pipeline import Pipeline
from dosel.settings import Settings
from external.columns import as_words
from external.generator import generate
from tests.soak.cluster_driver import of_experiment

KINDS = ("worker", "all workers", "scheduler", "driver")
ROWS, WORKERS = 2_000, 2
RESTART_SECONDS = 1.0
"""Between an end and a new start, as in Compose."""
MOST_SECONDS = 300
"""For one training with its kill."""


@dataclass
class Tally:
    """What all trainings came to."""

    kills: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    doubled: int = 0
    digest_differs: int = 0
    retries: int = 0
    recoveries: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """The figures of RESULT."""
        return {
            "kills": dict(self.kills),
            "lost": self.lost,
            "doubled": self.doubled,
            "digest_differs": self.digest_differs,
            "retries": self.retries,
            "slowest_recovery_s": round(max(self.recoveries, default=0.0), 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    figures = soak(asked.kills, asked.seed).figures()
    say(f"RESULT {json.dumps(figures)}")
    sys.exit(any(figures[name] for name in ("lost", "doubled", "digest_differs")))


def soak(kills: int, seed: int) -> Tally:
    """Train once in threads and once for each kill."""
    drawn, tally = random.Random(seed), Tally()
    with tempfile.TemporaryDirectory(prefix="dosel-soak-") as folder, local_dask(Path(folder), WORKERS) as dask:
        mlflow = Mlflow(dask.home)
        with mlflow.running():
            settings = dask.settings.model_copy(update={"tracking_uri": mlflow.url})
            rows = as_words(generate(ROWS, seed=1), first_class=1)
            Pipeline(of_experiment("threads"), settings).ingest(OneByOne([lambda: rows]))
            expected = digests(settings, in_threads(settings))
            # The first training also starts what the workers keep.
            usual = min(Training(dask, settings, f"usual {number}").run(None, 0.0) for number in range(2))
            for number in range(kills):
                kind, training = KINDS[number % len(KINDS)], None
                while training is None or training.killed_at is None:
                    # Again with another moment, if the training ended before it.
                    after = drawn.random() * usual
                    training = Training(dask, settings, f"{number} {kind} after {after:.3f} s")
                    seconds = training.run(kind, after)
                check(training, expected, tally)
                tally.kills[kind] += 1
                say(f"{number + 1}: {kind} after {after:.1f} s; {seconds:.1f} s in all, {tally.figures()}")
    return tally


def in_threads(settings: Settings) -> str:
    """Train without a cluster; returns the experiment."""
    Pipeline(of_experiment("threads"), settings.model_copy(update={"cluster": ""})).train()
    return "threads"


class Training:
    """One training, which a process of its own runs until it is finished, and one kill."""

    def __init__(self, dask: LocalDask, settings: Settings, experiment: str) -> None:
        self.settings = settings
        self.experiment = experiment
        self.retries = 0
        self.killed_at: float | None = None
        self.ended_at = 0.0
        self._dask = dask
        self._log = dask.home / "driver.log"

    def run(self, kind: str | None, after: float) -> float:
        """Train, kill after that many seconds, and train to the end; returns the duration in seconds."""
        # Trials of the trainings before, which have the same key.
        (self.settings.home / "studies.db").unlink(missing_ok=True)
        began = time.monotonic()
        driver = self._start()
        while True:
            elapsed = time.monotonic() - began
            if elapsed > MOST_SECONDS:
                kill(driver)
                raise SystemExit(f"{self.experiment}: no end after {MOST_SECONDS} s\n{self._log.read_text()[-5000:]}")
            if kind is not None and self.killed_at is None and elapsed >= after:
                self.killed_at = time.time()
                self._kill(kind, driver)
            self._start_what_ended()
            code = driver.poll()
            if code == 0:
                self.ended_at = time.time()
                return elapsed
            if code is not None:
                self.retries += 1
                time.sleep(RESTART_SECONDS)
                driver = self._start()
            time.sleep(0.05)

    def _kill(self, kind: str, driver: psutil.Popen) -> None:
        match kind:
            case "worker":
                self._dask.kill_worker()
            case "all workers":
                while self._dask.workers:
                    self._dask.kill_worker()
            case "scheduler":
                self._dask.kill_scheduler()
            case _:
                kill(driver)
        time.sleep(RESTART_SECONDS)

    def _start_what_ended(self) -> None:
        dask = self._dask
        dask.workers = [worker for worker in dask.workers if worker.poll() is None]
        if dask.scheduler is None:
            dask.start_scheduler()
        for _ in range(WORKERS - len(dask.workers)):
            dask.start_worker()

    def _start(self) -> psutil.Popen:
        environment = self._dask.environment | {"MLFLOW_TRACKING_URI": self.settings.tracking_uri}
        with self._log.open("ab") as log:
            return psutil.Popen(
                [sys.executable, "-m", "tests.soak.cluster_driver", self.experiment],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def check(training: Training, expected: dict[str, str], tally: Tally) -> None:
    """Add what a finished training has lost, doubled or changed to the tally."""
    client = MlflowClient(training.settings.tracking_uri)
    runs = all_runs(client, training.experiment)

    for family, digest in expected.items():
        finished = [run for run in runs if run.data.tags.get(tags.FAMILY_KEY) and run.data.tags[tags.FAMILY] == family]
        finished = [run for run in finished if run.info.status == "FINISHED"]
        tally.doubled += len(finished) - 1
        run = finished[0] if finished else None
        tally.digest_differs += run is None or run.data.tags.get(tags.MODEL_DIGEST) != digest
        children = [r for r in runs if run and r.data.tags.get("mlflow.parentRunId") == run.info.run_id]
        places = Counter(child.data.tags[tags.CANDIDATE] for child in children)
        tally.lost += int(next(iter(places)).partition("/")[2]) - len(places) if places else 1
        tally.doubled += places.total() - len(places)
    scored = [run.info.end_time / 1000 for run in runs if tags.CANDIDATE in run.data.tags]
    assert training.killed_at is not None
    after = [moment for moment in (*scored, training.ended_at) if moment > training.killed_at]
    tally.recoveries.append(min(after) - training.killed_at)
    tally.retries += training.retries


def digests(settings: Settings, experiment: str) -> dict[str, str]:
    """The digest of each family's model."""
    runs = all_runs(MlflowClient(settings.tracking_uri), experiment)
    found = [run.data.tags for run in runs if tags.MODEL_DIGEST in run.data.tags]
    return {of[tags.FAMILY]: of[tags.MODEL_DIGEST] for of in found}


def all_runs(client: MlflowClient, experiment: str) -> list[Any]:
    """All runs of an experiment."""
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id], max_results=1000)) if found else []


if __name__ == "__main__":
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    main()
