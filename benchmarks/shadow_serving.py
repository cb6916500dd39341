"""The cost of a shadow for the champion's answers, and the time of an automatic rollback."""

import json
import shutil
import time
from contextlib import ExitStack
from datetime import timedelta
from statistics import median
from typing import Any

import httpx
import numpy as np
from sqlalchemy import func, select

from benchmarks.installation import Installation, installation, say, wait_until
from benchmarks.serving import uvicorn
from benchmarks.wrk import Load, Target
from dosel.db.engine import connect, transaction
from dosel.db.tables import SHADOW_ANSWERS
from dosel.registry.registry import Registry
from dosel.rows import frames
from dosel.usecases.covertype import COVERTYPE
from external.columns import as_words
from external.generator import generate

USE_CASE = COVERTYPE.with_shadow()
MODEL = USE_CASE.model_name
ROUNDS, SECONDS, CONNECTIONS = 9, 4, 16
FORESTS = ((80, 12), (20, 8))


def cost() -> dict[str, object]:
    """The champion's throughput at full load and its p99 at half of it, with a shadow divided by without one."""
    if shutil.which("wrk") is None:
        say("\nwithout wrk, there are no p99_ratio and throughput_ratio")
        return {"p99_ratio": None, "throughput_ratio": None}
    with installation(*FORESTS) as here, ExitStack() as stack:
        row = json.dumps(USE_CASE.example).encode()
        targets = {}
        for name, shadow in (("with a shadow", "true"), ("without", "false")):
            url, _, _ = stack.enter_context(
                uvicorn(here, "app.main:create_app", "/readyz", DOSEL_SHADOW=shadow, DOSEL_PREDICTION_LOG="10000")
            )
            targets[name] = url, Target.posting(here.settings.home, name, f"{url}/predict", row)
        start_shadow(here)
        wait_for_shadow(targets["with a shadow"][0])
        full = _rounds(targets)
        # Rows that wait since the full load must not count as half load.
        wait_until(lambda: not any(_waiting(url) for url, _ in targets.values()), 60, lambda: "empty queues")
        paced = _rounds(targets, 2 * CONNECTIONS / min(median(load.rate for load in each) for each in full.values()))
        answered, dropped = _counts(here, targets["with a shadow"][0])
    rate = {name: median(load.rate for load in each) for name, each in full.items()}
    p99 = {name: median(load.p99_ms for load in each) for name, each in paced.items()}
    half = {name: median(load.rate for load in each) for name, each in paced.items()}
    failed = sum(load.failed for each in (*full.values(), *paced.values()) for load in each)
    say("\n| champion's answers | requests/s, full load | requests/s, half load | p99 at half load, ms |")
    say("|---|---:|---:|---:|")
    for name in targets:
        say(f"| {name} | {rate[name]:,.0f} | {half[name]:,.0f} | {p99[name]:.2f} |")
    say(f"\n{answered:,} answers in shadow, {dropped:,.0f} rows dropped, {failed} requests failed")
    return {
        "p99_ratio": round(p99["with a shadow"] / p99["without"], 3),
        "throughput_ratio": round(half["with a shadow"] / half["without"], 3),
        "full_load_ratio": round(rate["with a shadow"] / rate["without"], 3),
        "shadow_answers": answered,
        "shadow_dropped": int(dropped),
        "failed_at_load": failed,
    }


def rollback() -> dict[str, object]:
    """Seconds from the deciding label to the first answer of the previous version, after the rollback."""
    with (
        installation(*FORESTS[::-1]) as here,
        uvicorn(here, "app.main:create_app", "/readyz", DOSEL_SHADOW="true") as (url, _, _),
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        before, after = here.versions
        here.promote(after)
        rows = _disagreements(Registry.opened(here.settings), before, after)
        client.post("/warmup").raise_for_status()
        wait_until(lambda: _answer(client, rows[0][0])["model"]["version"] == after, 20, lambda: "the new version")
        # The change of Production starts the control.
        wait_for_shadow(url)
        labelled = [(_answer(client, row)["request_id"], truth) for row, truth in rows]
        wait_until(lambda: _counts(here, url)[0] >= len(labelled), 30, lambda: "the answers in shadow")
        rules = USE_CASE.gate.shadow
        assert rules is not None
        _feedback(client, labelled[: rules.min_labels - 1])
        wait_until(lambda: _labels(client) == rules.min_labels - 1, 30, lambda: "the labels to be counted")
        assert _answer(client, rows[0][0])["model"]["version"] == after
        began = time.perf_counter()
        _feedback(client, labelled[rules.min_labels - 1 : rules.min_labels])
        wait_until(lambda: _answer(client, rows[0][0])["model"]["version"] == before, 30, lambda: "the version before")
        seconds = time.perf_counter() - began
    say(f"\nfrom the deciding label to an answer of the version before: {seconds:.2f} s")
    return {"rollback_s": round(seconds, 2)}


def start_shadow(here: Installation) -> None:
    """Let the second version answer in shadow of the first."""
    registry = here.pipeline.registry
    entry = registry.last_promotion(MODEL)
    assert entry is not None
    challenger = registry.version(MODEL, here.versions[1])
    registry.start_shadow(challenger, "challenger", timedelta(days=1), "benchmark", "a benchmark", entry.sequence)


def wait_for_shadow(url: str) -> None:
    """Wait until the API has loaded the version in shadow."""

    def loaded() -> bool:
        shadows = httpx.get(f"{url}/use-cases/{USE_CASE.name}/shadow", timeout=10).raise_for_status().json()["shadows"]
        return any(shadow["loaded"] for shadow in shadows)

    wait_until(loaded, 60, lambda: "the version in shadow to be loaded")


def _rounds(targets: dict[str, tuple[str, Target]], pace: float = 0.0) -> dict[str, list[Load]]:
    """The loads of each target, in alternating order."""
    loads: dict[str, list[Load]] = {name: [] for name in targets}
    for number in range(ROUNDS):
        for name, (_, target) in list(targets.items())[:: 1 if number % 2 else -1]:
            loads[name].append(target.load(SECONDS, CONNECTIONS, pace))
    return loads


def _metrics(url: str, prefixes: tuple[str, ...]) -> float:
    """The sum of the metrics whose names begin so."""
    lines = httpx.get(f"{url}/metrics", timeout=10).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(prefixes))


def _waiting(url: str) -> float:
    return _metrics(url, ("dosel_prediction_log_waiting", "dosel_shadow_waiting"))


def _counts(here: Installation, url: str) -> tuple[int, float]:
    """The numbers of stored shadow answers and of dropped rows."""
    with transaction(connect(here.settings.warehouse_url)) as connection:
        stored = connection.scalar(select(func.count()).select_from(SHADOW_ANSWERS)) or 0
    return stored, _metrics(url, ("dosel_shadow_dropped",))


def _disagreements(registry: Registry, before: int, after: int) -> list[tuple[dict[str, Any], int]]:
    """Rows with different answers of the two versions, each with the earlier version's answer as its truth."""
    from dosel.quality import check

    rows = as_words(generate(6_000, seed=9), first_class=1)
    frame = check(USE_CASE, rows, "uci").accepted
    features = frames.canonical(USE_CASE, frame)
    answers = [np.asarray(registry.load(registry.version(MODEL, v)).predict(features)) for v in (before, after)]
    differ = np.flatnonzero(answers[0] != answers[1])[:150]
    assert len(differ) == 150
    documents = frame[list(USE_CASE.feature_names)].iloc[differ].to_dict("records")
    return [
        ({str(k): v for k, v in row.items()}, int(answers[0][place]))
        for row, place in zip(documents, differ, strict=True)
    ]


def _labels(client: httpx.Client) -> int:
    """The number of labelled rows of the version in shadow."""
    [shadow] = client.get(f"/use-cases/{USE_CASE.name}/shadow").raise_for_status().json()["shadows"]
    return int(shadow["evidence"]["labels"])


def _answer(client: httpx.Client, row: dict[str, Any]) -> Any:
    response = client.post(f"/predict/{USE_CASE.name}", json=row).raise_for_status()
    return response.json() | {"request_id": response.headers["X-Dosel-Request-ID"]}


def _feedback(client: httpx.Client, labelled: list[tuple[str, int]]) -> None:
    document = [{"request_id": request_id, "truth": truth} for request_id, truth in labelled]
    client.post(f"/feedback/{USE_CASE.name}", json=document).raise_for_status()
