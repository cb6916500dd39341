"""Attacks a running API while another client sends requests, and measures the effect on that client.

    make attack                  some five minutes; CASES="heads uploads" for the attacks with these words in their name

The API has one worker, SQLite and files. An attack fails if the API's resident memory passes 1 GB, as in
Compose. RLIMIT_DATA stops growth between two measurements: it needs no rights, but counts the stacks of threads
and all other writable memory, resident or not, so that it is twice as high. The attacks use loopback only.
"""

import json
import multiprocessing
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import psutil

from benchmarks.installation import Installation, free_port, installation, process, resident_mb, say
from benchmarks.serving import BATCH
from tests.attack import bodies, calls, connections, locks, models, rows
from tests.attack.others import Samples, go_on
from tests.attack.target import HOST, LIMITED_RATE, Attack, Outcome, Target, carry_out

ATTACKS: tuple[Attack, ...] = (
    *connections.ATTACKS,
    *bodies.ATTACKS,
    *calls.ATTACKS,
    *locks.ATTACKS,
    *rows.ATTACKS,
    *models.ATTACKS,
)

RESIDENT_MB = 1_000
MEMORY_BYTES = 3_100_000_000
"""The limit of private memory, used or not: threads' stacks, and an arena of 1.07 GB that Arrow reserves and of which
it uses some MB. `RESIDENT_MB` limits what is used."""

REST_SECONDS = 2.0
SETTLE_SECONDS = 1.0
MOST_SECONDS = 60.0
MOST_RATIO, MOST_GROWTH_MB = 3.0, 100.0

METRIC = re.compile(r'dosel_requests_total\{method="(\w+)",route="([^"]+)",status="(5\d\d)"\} ([\d.e+]+)')

SPAWN = multiprocessing.get_context("spawn")
LIMITED = (
    "import os, resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]),) * 2); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)


@dataclass
class Case:
    """An attack that was carried out; memory in MB."""

    attack: Attack
    began: float
    ended: float
    outcome: Outcome
    peak: float
    after: float


def main() -> None:
    asked = sys.argv[1:]
    chosen = [a for a in ATTACKS if not asked or any(word in a.name for word in asked)]
    if not chosen:
        raise SystemExit(f"there is no attack with these words; there are: {'; '.join(a.name for a in ATTACKS)}")
    with (
        installation((40, 10), calls.FULLY_GROWN) as here,
        served(here) as (port, api),
        served(here, DOSEL_RATE_LIMIT=str(LIMITED_RATE), DOSEL_HOME=str(here.settings.home / "limited")) as (
            limited_port,
            _,
        ),
        served(here, "tests.attack.closed", DOSEL_HOME=str(here.settings.home / "closed"), DOSEL_EXPLAIN_RATE="0") as (
            closed_port,
            _,
        ),
    ):
        target = Target(port, limited_port, closed_port, _mlflow(here), dict(here.environment))
        warm_up(port)
        with going_on(port) as samples:
            time.sleep(2 * REST_SECONDS)
            before = resident_mb(api)
            cases = []
            for attack in chosen:
                cases.append(carried_out(attack, target, api))
                time.sleep(REST_SECONDS)
        undeclared = undeclared_5xx(port)
        if undeclared:
            say(errors_of(here.settings.home / f"{port}.log"))
        report(cases, samples(), before, undeclared)


@contextmanager
def served(here: Installation, app: str = "app.main", **environment: str) -> Iterator[tuple[int, psutil.Process]]:
    """The API with a limit of `MEMORY_BYTES`: its port and process."""
    port = free_port()
    command = [sys.executable, "-c", LIMITED, str(MEMORY_BYTES), sys.executable, "-m", "app.server"]
    command += [f"{app}:create_app", "--host", HOST, "--port", str(port)]
    url, log = f"http://{HOST}:{port}", here.settings.home / f"{port}.log"
    with process(command, here.environment | environment, f"{url}/readyz", log) as (running, _):
        yield port, running


def warm_up(port: int) -> None:
    """Make each ordinary call once, so that modules loaded at first use do not count as growth."""
    client = httpx.Client(base_url=f"http://{HOST}:{port}", timeout=60)
    client.post("/predict", content=bodies.ROW).raise_for_status()
    client.post(f"/predict{calls.VERSION}", content=bodies.ROW).raise_for_status()
    client.post("/predict", content=bodies.AS_TEXT).raise_for_status()
    client.post("/explain/covertype", content=bodies.ROW)
    for kind, body in ((bodies.CSV, bodies.csv_rows(20_000)), (bodies.JSON, b"[" + bodies.ROW + b"]")):
        client.post(BATCH, content=body, headers=kind).raise_for_status()
    for path in (*calls.READS, calls.COMPARISON, "/openapi.json", "/docs"):
        client.get(path).raise_for_status()


@contextmanager
def going_on(port: int) -> Iterator[Callable[[], Samples]]:
    """Run the other client in its own process; its samples are complete after the block."""
    ours, theirs = SPAWN.Pipe()
    client = SPAWN.Process(target=go_on, args=(port, theirs), daemon=True)
    client.start()
    found: Samples = []
    try:
        yield lambda: found
    finally:
        ours.send(None)
        if ours.poll(30):
            found.extend(ours.recv())
        client.join(10)


def carried_out(attack: Attack, target: Target, api: psutil.Process) -> Case:
    """Run an attack in its own process, and measure the API's memory during it."""
    peak, ended = [resident_mb(api)], Event()

    def watch() -> None:
        while not ended.wait(0.1):
            peak.append(resident_mb(api))

    watcher = Thread(target=watch)
    watcher.start()
    ours, theirs = SPAWN.Pipe()
    attacker = SPAWN.Process(target=carry_out, args=(attack, target, theirs), daemon=True)
    attacker.start()
    # Without this, the parent would wait for an attacker that failed.
    theirs.close()
    try:
        ours.recv()
        began = time.monotonic()
        outcome: Outcome = ours.recv() if ours.poll(MOST_SECONDS) else Outcome(failed=f"took over {MOST_SECONDS:g} s")
        finished = time.monotonic()
    except EOFError:
        raise SystemExit(f"{attack.name}: the attack itself failed") from None
    finally:
        ended.set()
        watcher.join()
        attacker.terminate()
    if max(peak) > RESIDENT_MB and not outcome.failed:
        outcome.failed = f"the API took {max(peak):,.0f} MB"
    time.sleep(SETTLE_SECONDS)
    case = Case(attack, began, finished, outcome, max(peak), resident_mb(api))
    say(f"{attack.name}: {finished - began:.0f} s, {dict(outcome.answers)} {outcome.failed}")
    return case


def undeclared_5xx(port: int) -> dict[str, int]:
    """The answers of 500 and more that the OpenAPI document does not declare, by the API's own metrics."""
    with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=30) as client:
        paths: dict[str, Any] = client.get("/openapi.json").raise_for_status().json()["paths"]
        text = client.get("/metrics").raise_for_status().text
    found = {}
    for method, route, status, count in METRIC.findall(text):
        if status not in paths.get(route, {}).get(method.lower(), {}).get("responses", {}):
            found[f"{method} {route} {status}"] = int(float(count))
    return found


def errors_of(log: Path) -> str:
    """The last errors in a log of the API."""
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join([line[-3_000:] for line in lines if '"level":"error"' in line][-3:])


def report(cases: list[Case], samples: Samples, before: float, undeclared: dict[str, int]) -> None:
    """Print the table and the result; exit with 1 if a limit was passed."""
    at_rest = [ms for sent, ms, _ in samples if not any(c.began <= sent <= c.ended + SETTLE_SECONDS for c in cases)]
    usual = p99(at_rest)
    say(f"\nthe other client at rest: p99 {usual:.2f} ms in {len(at_rest):,} requests")
    say("\n| attack | must not | s | others' p99 ms | ratio | not 200 | peak MB | stays MB | answers | failed |")
    say("|---|---|---:|---:|---:|---:|---:|---:|---|---|")
    ratios = []
    for case in cases:
        during = [(ms, status) for sent, ms, status in samples if case.began <= sent <= case.ended]
        slow, refused = p99([ms for ms, _ in during]), sum(status != "200" for _, status in during)
        ratios.append(slow / usual)
        answers = ", ".join(f"{count} x {status}" for status, count in sorted(case.outcome.answers.items()))
        say(
            f"| {case.attack.name} | {case.attack.must_not} | {case.ended - case.began:.0f} | {slow:.1f} "
            f"| {ratios[-1]:.1f} | {refused} | {case.peak - before:.0f} | {case.after - before:.0f} | {answers} "
            f"| {case.outcome.failed} |"
        )
    result = {
        "cases": len(cases),
        "failed": sum(bool(case.outcome.failed) for case in cases),
        "others_failed": sum(status != "200" for _, _, status in samples),
        "others_p99_ratio": round(max(ratios), 1),
        "rss_growth_mb": round(max(case.after for case in cases) - before, 1),
        "undeclared_5xx": sum(undeclared.values()),
        "rows_reconstructed": sum(case.outcome.rows_reconstructed for case in cases),
        "foreign_models_served": sum(case.outcome.foreign_models_served for case in cases),
    }
    if undeclared:
        say(f"undeclared: {undeclared}")
    say(f"RESULT {json.dumps(result)}")
    counted = ("failed", "others_failed", "undeclared_5xx", "rows_reconstructed", "foreign_models_served")
    bad = any(result[name] for name in counted)
    sys.exit(bad or result["others_p99_ratio"] > MOST_RATIO or result["rss_growth_mb"] > MOST_GROWTH_MB)


def p99(values: list[float]) -> float:
    """The 99th percentile; NaN without values."""
    return sorted(values)[int(0.99 * (len(values) - 1))] if values else float("nan")


def _mlflow(here: Installation) -> tuple[int, ...]:
    port = here.mlflow.url.rpartition(":")[2]
    [server] = [p for p in psutil.Process().children() if "mlflow" in p.cmdline() and port in p.cmdline()]
    return tuple(p.pid for p in (server, *server.children(recursive=True)))


if __name__ == "__main__":
    main()
