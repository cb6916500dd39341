"""Measures the API beside other servers of the same model and apps that only read the body.

    make bench-serving           PARTS="rows batches" for some of it: rows, middleware, batches, starts
                                 BEFORE=folder adds the API of another checkout

Needs wrk. All services run on this machine, one worker each, with the same flags; the API with everything on.
"""

import argparse
import csv
import io
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import httpx
import psutil

from benchmarks import rivals
from benchmarks.checkouts import Start, Started, checkout
from benchmarks.installation import HOST, ROOT, Installation, free_port, installation, parsed, process, resident_mb, say
from benchmarks.wrk import Load, Target, side_by_side
from dosel.usecases.covertype import COVERTYPE
from external.columns import as_words
from external.generator import generate

CONNECTIONS = 16
CONSTANTS = {"constant": "benchmarks.constant:create_app", "bare constant": "benchmarks.constant:create_bare"}
LAYERS = ("ids, logs, metrics and headers", "keys and rates", "limits")
MILLION = 1_000_000
BATCH = f"/predict/{COVERTYPE.name}/batch"

Row = tuple[str, Load, float, float]
Figures = dict[str, float | None]


def main() -> None:
    if not shutil.which("wrk"):
        raise SystemExit("wrk is needed (Debian: apt-get install wrk)")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"all by default: {', '.join(PARTS)}")
    parser.add_argument("--before", type=Path, help="another checkout with an environment in its .venv")
    asked = parsed(parser, "parts", PARTS)
    with installation((80, 12)) as here:
        result: Figures = {}
        for name, part in PARTS.items():
            if not asked.parts or name in asked.parts:
                result |= part(here, asked.before)
    say(f"RESULT {json.dumps(result)}")


@contextmanager
def uvicorn(here: Installation, app: str, ready: str, workers: int = 1, **environment: str) -> Iterator[Started]:
    """An app with the flags of `make up`: its address, process and seconds until ready."""
    port = free_port()
    command = [sys.executable, "-m", "app.server", app, "--host", HOST, "--port", str(port)]
    command += ["--workers", str(workers)] if workers > 1 else []
    url = f"http://{HOST}:{port}"
    log = here.settings.home / f"{port}.log"
    with process(command, here.environment | environment, url + ready, log) as (running, seconds):
        yield url, running, seconds


def single_rows(here: Installation, before: Path | None) -> Figures:
    """One row per request."""
    folder, row = here.settings.home, json.dumps(COVERTYPE.example).encode()
    rows: list[Row] = []
    with ExitStack() as stack:

        def start(name: str, api: AbstractContextManager[Started]) -> tuple[Target, float, float]:
            url, running, seconds = stack.enter_context(api)
            time.sleep(2)
            return Target.posting(folder, name, f"{url}/predict", row), resident_mb(running), seconds

        started = [start("dosel", uvicorn(here, "app.main:create_app", "/readyz"))]
        if before is not None:
            started.append(start("dosel before", stack.enter_context(checkout(before))()))
        started += [start(name, uvicorn(here, app, "/healthz")) for name, app in CONSTANTS.items()]
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
    rate = {name: load.rate for name, load, _, _ in rows}
    say("\n| one row a request | requests/s | dosel's, ratio | p50 ms | p99 ms | failed | memory MB | start s |")
    say("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, load, memory, seconds in rows:
        ratio = rate["dosel, 1 connection" if name.endswith("1 connection") else "dosel"] / load.rate
        figures = f"{load.rate:,.0f} | {ratio:.3g} | {load.p50_ms:.2f} | {load.p99_ms:.2f} | {load.failed}"
        say(f"| {name} | {figures} | {f'{memory:.0f} | {seconds:.1f}' if memory else ' | '} |")
    others = {
        "vs_constant": "constant",
        "vs_bare_constant": "bare constant",
        "vs_before": "dosel before",
        "vs_mlflow_serve": "mlflow models serve",
        "vs_bentoml": "BentoML",
    }
    return {
        **{key: round(rate["dosel"] / rate[name], 3) for key, name in others.items() if name in rate},
        "p99_over_p50": round(both["dosel"].p99_ms / both["dosel"].p50_ms, 1),
        "requests_per_s": round(rate["dosel"]),
    }


def middleware(here: Installation, before: Path | None) -> Figures:
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


def batches(here: Installation, before: Path | None) -> Figures:
    """Many rows per request."""
    words = as_words(generate(1_000, seed=7), first_class=1)
    numbers = {number.name for number in COVERTYPE.numbers}
    listed = [
        {n: int(v) if n in numbers else v for n, v in zip(COVERTYPE.feature_names, row, strict=False)} for row in words
    ]
    forms = {"JSON": (json.dumps(listed).encode(), "application/json"), "CSV": (as_csv(words), "text/csv")}
    folder = here.settings.home
    with ExitStack() as stack:
        url, running, _ = stack.enter_context(uvicorn(here, "app.main:create_app", "/readyz"))
        sides = {"": url}
        if before is not None:
            sides[" before"], _, _ = stack.enter_context(stack.enter_context(checkout(before))())
        time.sleep(2)
        found: dict[str, Load] = {}
        # One format after the other, so that both sides of a format run at nearly the same time.
        for name, (body, kind) in forms.items():
            targets = [Target.posting(folder, name + side, at + BATCH, body, kind) for side, at in sides.items()]
            found |= side_by_side(targets, 5, 4, 2)
        say("\n| 1,000 rows a request, 2 connections | rows/s | p50 ms | p99 ms | failed |\n|---|---:|---:|---:|---:|")
        for name, load in found.items():
            say(f"| {name} | {1000 * load.rate:,.0f} | {load.p50_ms:.1f} | {load.p99_ms:.1f} | {load.failed} |")
        seconds, grown, in_order = a_million(url, running, folder)
    say(f"\nA CSV of a million rows: {seconds:.1f} s, {grown:.0f} MB above idle, in order: {in_order}.")
    return {
        "batch_rows_per_s": round(1000 * found["JSON"].rate),
        "csv_rows_per_s": round(1000 * found["CSV"].rate),
        **{
            f"{name.lower()}_vs_before": round(found[name].rate / found[f"{name} before"].rate, 2)
            for name in forms
            if before is not None
        },
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


def cold_starts(here: Installation, before: Path | None) -> Figures:
    """A fresh process with three models, beside another checkout's: time to the first answer, and memory."""
    result: Figures = {}
    sides = {"now": ROOT} | ({"before": before} if before is not None else {})
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    with ExitStack() as stack:
        starts = {name: stack.enter_context(checkout(folder, every_use_case=True)) for name, folder in sides.items()}
        for number in range(START_ROUNDS):
            for name in list(sides)[:: 1 if number % 2 else -1]:
                seen[name].append(one_start(starts[name]))
    say(f"\n| a fresh API process with three models, median of {START_ROUNDS} | {' | '.join(sides)} |")
    say(f"|---|{'---:|' * len(sides)}")
    for figure in seen["now"][0]:
        medians = {name: median(each[figure] for each in seen[name]) for name in sides}
        say(f"| {FIGURES_OF_STARTS[figure]} | {' | '.join(f'{value:.2f}' for value in medians.values())} |")
        result[figure] = round(medians["now"], 2)
        if before is not None:
            result[f"{figure}_vs_before"] = round(medians["now"] / medians["before"], 2)
    return result


def one_start(start: Start) -> dict[str, float]:
    """Start an API twice: with an empty cache, and with the cache that the first one wrote."""
    found: dict[str, float] = {}
    with TemporaryDirectory(prefix="dosel-benchmark-") as home:
        for suffix in ("", "_from_disk"):
            with start(DOSEL_HOME=home) as (url, running, seconds):
                began = time.perf_counter()
                httpx.post(f"{url}/predict", json=COVERTYPE.example, timeout=60).raise_for_status()
                found[f"first_answer{suffix}_s"] = seconds + time.perf_counter() - began
                # Models are written to the cache after the first answer.
                time.sleep(4)
                found[f"memory{suffix}_mb"] = resident_mb(running)
    return found


START_ROUNDS = 5
FIGURES_OF_STARTS = {
    "first_answer_s": "first answer, s",
    "memory_mb": "memory four seconds later, MB",
    "first_answer_from_disk_s": "first answer with a cache, s",
    "memory_from_disk_mb": "memory four seconds later, MB",
}

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
