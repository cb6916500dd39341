"""Measures a training on rows beyond memory, from the data store to a version that the gate has judged.

    python -m benchmarks.large --rows 5800000

Generated rows of covertype are put into the data store in batches as large as the data API's. Then the driver, whose
memory is measured, writes the partitions, lets two Dask workers train a partitioned LightGBM, and sends the version to
the gate. Putting rows into the data store is not part of the minutes.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import perf_counter
from typing import Any

import psutil

from benchmarks.dask_cluster import LocalDask, local_dask
from benchmarks.installation import OneByOne, Rows, in_a_process, peak_mb, say
from benchmarks.training import mlflow_server
from dosel.pipeline import Pipeline
from dosel.settings import Settings
from dosel.usecases.covertype import COVERTYPE
from external.columns import as_words
from external.generator import generate

ROWS = 5_800_000
ROWS_A_BATCH = 58_101
WORKERS = 2
LOOK_SECONDS = 0.5

LIGHTGBM = replace(
    next(family for family in COVERTYPE.families if family.name == "lightgbm"),
    space={"n_estimators": (20,), "num_leaves": (31,), "learning_rate": (0.2,)},
    partitioned=True,
)
USE_CASE = replace(COVERTYPE, families=(LIGHTGBM,), folds=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    say(f"RESULT {json.dumps(large(parser.parse_args().rows))}")


def large(rows: int) -> dict[str, Any]:
    """The figures of one training on that many generated rows."""
    with (
        TemporaryDirectory(prefix="dosel-benchmark-") as home,
        local_dask(Path(home), WORKERS) as dask,
        mlflow_server() as uri,
    ):
        settings = dask.settings.model_copy(update={"tracking_uri": uri})
        began = perf_counter()
        clean = in_a_process(ingested, settings, rows)
        say(f"{clean['rows']:,} clean rows in the data store after {perf_counter() - began:.0f} s")
        with peak_of_workers(dask) as workers:
            found = in_a_process(trained, settings)
    result = {
        "big_rows": clean["rows"],
        "big_ingest_mb": clean["mb"],
        "big_driver_mb": found["mb"],
        "big_worker_mb": max(workers),
        "big_minutes": round(found["seconds"] / 60, 1),
        "big_accuracy": round(found["accuracy"], 4),
    }
    say(
        f"{clean['rows']:,} rows, {WORKERS} workers: {result['big_minutes']} min, driver {result['big_driver_mb']} MB, "
        f"largest worker {result['big_worker_mb']} MB, held-out accuracy {result['big_accuracy']}"
    )
    return result


def ingested(settings: Settings, rows: int) -> dict[str, Any]:
    """Put generated rows into the data store, batch by batch."""

    def batch(number: int) -> Callable[[], Rows]:
        return lambda: as_words(generate(ROWS_A_BATCH, seed=number), first_class=1)

    pipeline = Pipeline(USE_CASE, settings)
    records = pipeline.ingest(OneByOne([batch(number) for number in range(-(-rows // ROWS_A_BATCH))]))
    return {"rows": sum(record.rows_clean for record in records), "mb": round(peak_mb())}


def trained(settings: Settings) -> dict[str, Any]:
    """Train, register and judge as the DAG's tasks do."""
    began = perf_counter()
    pipeline = Pipeline(USE_CASE, settings)
    assert pipeline.training_due()
    number = pipeline.register(pipeline.train())
    say(f"registered after {perf_counter() - began:.0f} s, {peak_mb():.0f} MB")
    pipeline.challenge(number, "benchmark")
    seconds = perf_counter() - began
    version = pipeline.registry.version(USE_CASE.model_name, number)
    return {"seconds": seconds, "mb": round(peak_mb()), "accuracy": version.metrics["holdout_accuracy"]}


@contextmanager
def peak_of_workers(dask: LocalDask) -> Iterator[list[int]]:
    """The largest memory of each worker's processes together, in megabytes; complete after the block."""
    peaks, over = [0] * len(dask.workers), Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            for place, worker in enumerate(dask.workers):
                processes = [worker, *worker.children(recursive=True)]
                peaks[place] = max(peaks[place], sum(map(_megabytes, processes)))

    looking = Thread(target=look)
    looking.start()
    try:
        yield peaks
    finally:
        over.set()
        looking.join()


def _megabytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss / 1e6)
    except psutil.NoSuchProcess:
        return 0


if __name__ == "__main__":
    main()
