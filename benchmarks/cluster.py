"""Measures trainings on a Dask cluster of this machine, side by side with threads.

    make bench-cluster           PARTS="scores tasks compared large" for some; SIZES="7000 116203" for other sizes

Both sides train all of covertype's families on the same rows, from rows in memory to a finished comparison on an MLflow
server over HTTP. The cluster is a scheduler and workers of one thread each, with TLS, on this machine: two workers have
the cores that the threads have.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import perf_counter
from typing import Any

from mlflow import MlflowClient

from benchmarks.dask_cluster import LocalDask, local_dask
from benchmarks.installation import say
from benchmarks.large import ROWS, large
from benchmarks.training import generated, mlflow_server, prepared
from dosel.cluster.connection import Cluster
from dosel.model import tags
from dosel.pipeline import Pipeline
from dosel.registry.mlflow_calls import connect
from dosel.registry.training_progress import candidates_since
from dosel.settings import Settings
from dosel.training.candidates import Figures
from dosel.training.fan_out import Engine, Folds, SearchJob, Task, Threads
from dosel.training.on_cluster import OnCluster
from dosel.training.train import TrainingData, train
from dosel.usecases.covertype import COVERTYPE

SIZES = (7_000, 116_203)
ROUNDS = 3
SCORED_ROWS, WARM_UP_ROWS = 3_000, 400
NO_OPS = 1_000
SEED = 42
LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Outcome:
    """A training: its duration, and the scores and digest of each family's best model.

    Attributes:
        first_child_share: share of the tasks that were done when the first candidate was visible in MLflow.
    """

    seconds: float
    scores: dict[str, list[float]]
    digests: dict[str, str]
    first_child_share: float


class Counted:
    """An engine that counts the tasks that are done."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.side_by_side, self.jobs = engine.side_by_side, engine.jobs
        self.cores, self.close = engine.cores, engine.close
        self.done = 0

    @contextmanager
    def folds(self, job: SearchJob, X: Any, y: Any) -> Iterator[Folds]:
        with self._engine.folds(job, X, y) as folds:
            yield _CountedFolds(self, folds)


class _CountedFolds:
    def __init__(self, engine: Counted, folds: Folds) -> None:
        self._engine, self._folds, self.count = engine, folds, folds.count

    def score(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, list[Figures]]]:
        for found in self._folds.score(tasks):
            self._engine.done += 1
            yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--rows", type=int, default=ROWS, help="of the part large")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    result: dict[str, Any] = {}
    for part in asked.parts:
        result |= PARTS[part](asked)
    say(f"RESULT {json.dumps(result)}")


def scores(asked: argparse.Namespace) -> dict[str, Any]:
    """Scores and models with threads, and with one, two and three workers."""
    data = prepared(generated(SCORED_ROWS))
    with mlflow_server() as uri, cluster(workers=1) as dask:
        expected = trained(Threads(-1), data, uri, dask.home, "threads")
        found = []
        for workers in (1, 2, 3):
            while len(dask.workers) < workers:
                dask.start_worker()
            dask.wait_for_workers(workers)
            with Cluster(dask.settings) as connection:
                engine = OnCluster(connection, dask.settings, COVERTYPE.name)
                found.append(trained(engine, data, uri, dask.home, f"{workers} workers"))
    same = {
        "same_scores": all(outcome.scores == expected.scores for outcome in found),
        "same_digest": all(outcome.digests == expected.digests for outcome in found),
    }
    candidates = sum(map(len, expected.scores.values()))
    say(f"{candidates} candidates of {len(expected.digests)} families on 1, 2 and 3 workers and in threads: {same}")
    return same


def tasks(asked: argparse.Namespace) -> dict[str, Any]:
    """The cost of a task that does nothing, from the submission of all to the last result."""
    with cluster(workers=2) as dask, Cluster(dask.settings) as connection:
        seconds = []
        for number in range(asked.rounds):
            names = [f"nothing-{number}-{i}" for i in range(NO_OPS)]
            began = perf_counter()
            found = list(connection.results(names, lambda client, name: client.submit(len, name, key=name), str))
            seconds.append(perf_counter() - began)
            assert len(found) == NO_OPS
    ms = 1000 * median(seconds) / NO_OPS
    say(f"a task costs {ms:.1f} ms (median of {asked.rounds} rounds of {NO_OPS})")
    return {"ms_per_task": round(ms, 2)}


def compared(asked: argparse.Namespace) -> dict[str, Any]:
    """Trainings in threads and on two workers, and the megabytes that pass through the scheduler."""
    result: dict[str, Any] = {}
    say("| rows | threads, s | two workers, s | of threads | through the scheduler, MB |\n|---:|---:|---:|---:|---:|")
    with mlflow_server() as uri, cluster(workers=2) as dask:
        for engine, _ in both(dask):
            trained(engine, prepared(generated(WARM_UP_ROWS)), uri, dask.home, f"warm-up {type(engine).__name__}")
        for size in asked.sizes:
            table = generated(size)
            outcomes: dict[str, list[Outcome]] = {"threads": [], "workers": []}
            megabytes = 0.0
            for number in range(asked.rounds if size < 50_000 else 1):
                for engine, side in both(dask):
                    before = passed_through(dask)
                    outcomes[side].append(trained(engine, prepared(table), uri, dask.home, f"{size} {side} {number}"))
                    if side == "workers":
                        megabytes = (passed_through(dask) - before) / 1e6
            seconds = {side: median(outcome.seconds for outcome in of) for side, of in outcomes.items()}
            ratio = seconds["workers"] / seconds["threads"]
            say(f"| {size:,} | {seconds['threads']:.1f} | {seconds['workers']:.1f} | {ratio:.2f} | {megabytes:.1f} |")
            result |= {f"vs_threads_{size // 1000}k": round(ratio, 3), "scheduler_mb": round(megabytes, 1)}
            result["first_child_share"] = round(outcomes["workers"][-1].first_child_share, 3)
    return result


def rows_beyond_memory(asked: argparse.Namespace) -> dict[str, Any]:
    """A training on partitions."""
    return large(asked.rows)


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "scores": scores,
    "tasks": tasks,
    "compared": compared,
    "large": rows_beyond_memory,
}


@contextmanager
def cluster(workers: int) -> Iterator[LocalDask]:
    with TemporaryDirectory(prefix="dosel-benchmark-") as home, local_dask(Path(home), workers) as dask:
        yield dask


def both(dask: LocalDask) -> Iterator[tuple[Engine, str]]:
    """Each engine with its name."""
    yield Threads(-1), "threads"
    with Cluster(dask.settings) as connection:
        yield OnCluster(connection, dask.settings, COVERTYPE.name), "workers"


def trained(engine: Engine, data: TrainingData, uri: str, home: Path, experiment: str) -> Outcome:
    """Train all families in an experiment of its own, with the ledger in the folder `home`."""
    counted, client = Counted(engine), MlflowClient(uri)
    use_case = replace(COVERTYPE, experiment=experiment)
    settings = Settings(tracking_uri=uri, warehouse_url=f"sqlite:///{home / 'warehouse.db'}")
    ledger = Pipeline(use_case, settings).registry.ledger
    with first_child(uri, experiment, counted) as seen:
        began = perf_counter()
        run = train(use_case, data, uri, ledger, SEED, counted)
        seconds = perf_counter() - began
    families = {
        name: client.get_run(of) for name, of in tags.read_runs(client.get_run(run).data.tags[tags.FAMILIES]).items()
    }
    found = {name: candidate_scores(client, of.info.experiment_id, of.info.run_id) for name, of in families.items()}
    digests = {name: of.data.tags[tags.MODEL_DIGEST] for name, of in families.items()}
    return Outcome(seconds, found, digests, seen[0] / counted.done if seen else 1.0)


def candidate_scores(client: MlflowClient, experiment_id: str, run_id: str) -> list[float]:
    """The scores of a family's candidates, in their order."""
    children = client.search_runs([experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'", max_results=1000)
    ordered = sorted(children, key=lambda run: int(run.data.tags[tags.CANDIDATE].partition("/")[0]))
    return [run.data.metrics["mean_test_score"] for run in ordered]


@contextmanager
def first_child(uri: str, experiment: str, counted: Counted) -> Iterator[list[int]]:
    """The number of tasks that were done when the first candidate was visible, in a list."""
    seen: list[int] = []
    over, began, mlflow = Event(), datetime.now(UTC), connect(uri)

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            if candidates_since(mlflow, experiment, began):
                seen.append(counted.done)
                return

    looking = Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        over.set()
        looking.join()


def passed_through(dask: LocalDask) -> float:
    """Bytes that the scheduler has read and written, its log included; with TLS, its connections count as files do."""
    assert dask.scheduler is not None
    io = dask.scheduler.io_counters()
    return float(io.read_chars + io.write_chars)


if __name__ == "__main__":
    main()
