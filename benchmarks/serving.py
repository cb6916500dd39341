"""Measures the API beside other servers of the same model and an app that only checks the body.

    make bench-serving           PARTS="rows batches" for some of it: rows, middleware, batches, starts

Needs wrk. All services run on this machine, one worker each, with the same flags; the API with everything on.
"""

import csv
import io
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil

from benchmarks import rivals
from benchmarks.installation import HOST, ROOT, Installation, free_port, installation, process, resident_mb, say
from benchmarks.wrk import Load, Target, side_by_side
from dosel.usecases.covertype import COVERTYPE
from external.columns import as_words
from external.generator import generate

CONNECTIONS = 16
LAYERS = ("ids, logs, metrics and headers", "keys and rates", "limits")
MILLION = 1_000_000
BATCH = f"/predict/{COVERTYPE.name}/batch"

Row = tuple[str, Load, float, float]


def main() -> None:
    if not shutil.which("wrk"):
        raise SystemExit("wrk is needed (Debian: apt-get install wrk)")
    asked = sys.argv[1:]
    if unknown := set(asked) - set(PARTS):
        raise SystemExit(f"there is no {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    with installation((80, 12)) as here:
        result: dict[str, float] = {}
        for name, part in PARTS.items():
            if not asked or name in asked:
                result |= part(here)
    say(f"RESULT {json.dumps(result)}")


@contextmanager
def uvicorn(
    here: Installation, app: str, ready: str, workers: int = 1, checkout: Path | None = None, **environment: str
) -> Iterator[tuple[str, psutil.Process, float]]:
    """An app with the flags of `make up`: its address, process and seconds until ready.

    Args:
        checkout: another checkout, with its own environment, whose app is started; by default this one.
    """
    port = free_port()
    python = sys.executable if checkout is None else str(checkout / ".venv" / "bin" / "python")
    command = [python, "-m", "app.server", app, "--host", HOST, "--port", str(port)]
    command += ["--workers", str(workers)] if workers > 1 else []
    url = f"http://{HOST}:{port}"
    log = here.settings.home / f"{port}.log"
    with process(command, here.environment | environment, url + ready, log, cwd=checkout or ROOT) as (running, seconds):
        yield url, running, seconds


def single_rows(here: Installation) -> dict[str, float]:
    """One row per request."""
    folder, row = here.settings.home, json.dumps(COVERTYPE.example).encode()
    rows: list[Row] = []
    with ExitStack() as stack:

        def start(name: str, app: str, ready: str) -> tuple[Target, float, float]:
            url, running, seconds = stack.enter_context(uvicorn(here, app, ready))
            time.sleep(2)
            return Target.posting(folder, name, f"{url}/predict", row), resident_mb(running), seconds

        started = [
            start("dosel", "app.main:create_app", "/readyz"),
            start("constant", "benchmarks.constant:create_app", "/healthz"),
        ]
        targets = [target for target, _, _ in started]
        both = side_by_side(targets, 7, 4, CONNECTIONS)
        rows += [(target.name, both[target.name], memory, seconds) for target, memory, seconds in started]
        alone = side_by_side(targets, 3, 3, 1)
        rows += [(f"{name}, 1 connection", load, 0, 0) for name, load in alone.items()]
    with uvicorn(here, "app.main:create_app", "/readyz", workers=2) as (url, running, seconds):
        time.sleep(8)
        target = Target.posting(folder, "dosel, 2 workers", f"{url}/predict", row)
        rows.append(
            (target.name, side_by_side([target], 3, 4, CONNECTIONS)[target.name], resident_mb(running), seconds)
        )
    for rival in (rivals.mlflow_serve, rivals.bentoml):
        try:
            with rival(here) as (target, running, seconds):
                load = side_by_side([target], 3, 6, CONNECTIONS)[target.name]
                rows.append((target.name, load, resident_mb(running), seconds))
        except (subprocess.SubprocessError, SystemExit) as error:
            say(f"{rival.__name__} could not be measured: {error}")
    say("\n| one row a request, 16 connections | requests/s | p50 ms | p99 ms | failed | memory MB | start s |")
    say("|---|---:|---:|---:|---:|---:|---:|")
    for name, load, memory, seconds in rows:
        rest = f"{memory:.0f} | {seconds:.1f}" if memory else " | "
        say(f"| {name} | {load.rate:,.0f} | {load.p50_ms:.2f} | {load.p99_ms:.2f} | {load.failed} | {rest} |")
    rate = {name: load.rate for name, load, _, _ in rows}
    return {
        "vs_constant": round(rate["dosel"] / rate["constant"], 3),
        **{
            key: round(rate["dosel"] / rate[name], 1)
            for key, name in (("vs_mlflow_serve", "mlflow models serve"), ("vs_bentoml", "BentoML"))
            if name in rate
        },
        "p99_over_p50": round(both["dosel"].p99_ms / both["dosel"].p50_ms, 1),
        "requests_per_s": round(rate["dosel"]),
    }


def middleware(here: Installation) -> dict[str, float]:
    """The cost of each middleware: time of a request with all of them, minus the time without this one."""
    row = json.dumps(COVERTYPE.example).encode()
    say("\n| middleware | µs a request |\n|---|---:|")
    for name in LAYERS:
        with (
            uvicorn(here, "app.main:create_app", "/readyz") as (whole, _, _),
            uvicorn(here, "benchmarks.variants:create_app", "/readyz", DOSEL_BENCHMARK_WITHOUT=name) as (less, _, _),
        ):
            time.sleep(2)
            targets = [
                Target.posting(here.settings.home, "with", f"{whole}/predict", row),
                Target.posting(here.settings.home, "without", f"{less}/predict", row),
            ]
            found = side_by_side(targets, 3, 2, CONNECTIONS)
        say(f"| {name} | {1e6 / found['with'].rate - 1e6 / found['without'].rate:.1f} |")
    return {}


def batches(here: Installation) -> dict[str, float]:
    """Many rows per request."""
    words = as_words(generate(1_000, seed=7), first_class=1)
    numbers = {number.name for number in COVERTYPE.numbers}
    listed = [
        {n: int(v) if n in numbers else v for n, v in zip(COVERTYPE.feature_names, row, strict=False)} for row in words
    ]
    folder = here.settings.home
    with uvicorn(here, "app.main:create_app", "/readyz") as (url, running, _):
        time.sleep(2)
        targets = [
            Target.posting(folder, "JSON", url + BATCH, json.dumps(listed).encode()),
            Target.posting(folder, "CSV", url + BATCH, as_csv(words), "text/csv"),
        ]
        found = side_by_side(targets, 3, 5, 2)
        say("\n| 1,000 rows a request, 2 connections | rows/s | p50 ms | p99 ms | failed |\n|---|---:|---:|---:|---:|")
        for name, load in found.items():
            say(f"| {name} | {1000 * load.rate:,.0f} | {load.p50_ms:.1f} | {load.p99_ms:.1f} | {load.failed} |")
        seconds, grown, in_order = a_million(url, running, folder)
    say(f"\nA CSV of a million rows: {seconds:.1f} s, {grown:.0f} MB above idle, in order: {in_order}.")
    return {
        "batch_rows_per_s": round(1000 * found["JSON"].rate),
        "csv_rows_per_s": round(1000 * found["CSV"].rate),
        "million_rows_s": round(seconds, 1),
        "million_rows_mb": round(grown),
    }


def a_million(url: str, running: psutil.Process, folder: Path) -> tuple[float, float, bool]:
    """Send a million rows as one CSV; return seconds, growth of memory in MB, and whether the order is right."""
    words = as_words(generate(10_000, seed=8), first_class=1)
    body = as_csv(words)
    header, _, lines = body.partition(b"\n")
    file = folder / "million.csv"
    file.write_bytes(header + b"\n" + lines * (MILLION // len(words)))
    few = httpx.post(url + BATCH, content=body, headers={"Content-Type": "text/csv"}, timeout=60).text.splitlines()[1:]
    idle, peak, done = resident_mb(running), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.1):
            peak = max(peak, resident_mb(running))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, count, in_order = time.perf_counter(), 0, True
    with file.open("rb") as sent, httpx.Client(timeout=300) as client:
        headers = {"Content-Type": "text/csv", "Content-Length": str(file.stat().st_size)}
        with client.stream("POST", url + BATCH, content=sent, headers=headers) as response:
            response.raise_for_status()
            for number, line in enumerate(response.iter_lines()):
                if number:
                    in_order &= line == few[(number - 1) % len(few)]
                    count += 1
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    return seconds, peak - idle, in_order and count == MILLION


def cold_starts(here: Installation) -> dict[str, float]:
    """Seconds from the start of the process to its first answer, with an empty cache and from the cache alone."""
    with TemporaryDirectory(prefix="dosel-benchmark-") as home:
        times = {}
        for name in ("cold_start_s", "cold_start_from_disk_s"):
            with uvicorn(here, "app.main:create_app", "/readyz", DOSEL_HOME=home) as (url, _, seconds):
                httpx.post(f"{url}/predict", json=COVERTYPE.example).raise_for_status()
                times[name] = round(seconds, 2)
                # The model is written to the cache after its first answer.
                time.sleep(4)
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", "import app.main, dosel.registry.registry, dosel.model.predictor"], check=True
        )
        times["imports_s"] = round(time.perf_counter() - began, 2)
    say("\n| from start to first answer | seconds |\n|---|---:|")
    for name, seconds in times.items():
        say(f"| {name} | {seconds:.1f} |")
    return times


PARTS = {"rows": single_rows, "middleware": middleware, "batches": batches, "starts": cold_starts}
"""The measurements; arguments choose some of them."""


def as_csv(rows: list[list[str]]) -> bytes:
    """Rows without their target, as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COVERTYPE.feature_names)
    writer.writerows(row[: len(COVERTYPE.feature_names)] for row in rows)
    return out.getvalue().encode()


if __name__ == "__main__":
    main()
