"""The cost of the prediction log for each answer, and the speed of feedback on logged answers."""

import json
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psutil

from benchmarks.checkouts import checkout
from benchmarks.installation import local_server, say
from benchmarks.wrk import Target
from dosel.db.engine import connect
from dosel.embedded.local_databases import MariaDB
from dosel.embedded.services import ROOT
from dosel.monitor.feedback import FeedbackStore
from dosel.monitor.feedback_rows import GivenTruth
from dosel.registry.ledger import PromotionLedger
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.predictions import AnswerRecord, PredictionStore

ANSWERS, A_CALL = 20_000, 1_000
ROUNDS, SECONDS, CONNECTIONS = 9, 3, 16


def feedback_rows_per_s() -> dict[str, object]:
    """Rows per second that the store of `POST /feedback` accepts, in calls of 1,000."""
    say(f"\n| feedback on {ANSWERS:,} logged answers, {A_CALL:,} a call | rows/s |\n|---|---:|")
    with TemporaryDirectory(prefix="dosel-benchmark-") as folder:
        rate = _taken_in(f"sqlite:///{Path(folder) / 'warehouse.db'}")
    say(f"| SQLite | {rate:,.0f} |")
    if shutil.which("mariadbd"):
        with local_server(MariaDB) as server:
            say(f"| MariaDB | {_taken_in(server.url()):,.0f} |")
    return {"feedback_rows_per_s": round(rate)}


def _taken_in(url: str) -> float:
    engine = connect(url)
    ledger = PromotionLedger(engine)
    ledger.append(COVERTYPE.model_name, 1, "benchmark", "a benchmark")
    features = json.dumps(COVERTYPE.example)
    probabilities = json.dumps(dict.fromkeys(COVERTYPE.target.labels.values(), 0.142857))
    now = time.time()
    for start in range(0, ANSWERS, A_CALL):
        PredictionStore(engine, 10_000_000).append(
            [
                AnswerRecord(
                    *(f"{place:032d}", 1, 1, None, now, COVERTYPE.name, COVERTYPE.model_name, 1),
                    *(features, place, probabilities, 1),
                )
                for place in range(start, start + A_CALL)
            ]
        )
    store = FeedbackStore(engine, COVERTYPE, ledger)
    began = time.perf_counter()
    for start in range(0, ANSWERS, A_CALL):
        store.add([GivenTruth(f"{place:032d}", 1, 2) for place in range(start, start + A_CALL)])
    seconds = time.perf_counter() - began
    engine.dispose()
    return ANSWERS / seconds


def serving_ratio(before: Path | None = None) -> dict[str, object]:
    """Requests per second of processor time with the log on, divided by those of the other side.

    Args:
        before: another checkout with an environment of its own, whose API is the other side; by default, the other side
            is this checkout with the log off.
    """
    if shutil.which("wrk") is None:
        say("\nwithout wrk, there is no serving_ratio")
        return {"serving_ratio": None}
    other = "log off" if before is None else "before"
    sides = {"log on": (ROOT, 10_000), other: (ROOT, 0) if before is None else (before, 10_000)}
    with TemporaryDirectory(prefix="dosel-benchmark-") as home, ExitStack() as stack:
        row = json.dumps(COVERTYPE.example).encode()
        targets = dict[str, tuple[Target, psutil.Process]]()
        for name, (folder, capacity) in sides.items():
            start = stack.enter_context(checkout(folder))
            url, running, _ = stack.enter_context(start(DOSEL_PREDICTION_LOG=str(capacity)))
            targets[name] = Target.posting(Path(home), name, f"{url}/predict", row), running
        spent: dict[str, list[float]] = {name: [] for name in targets}
        for number in range(ROUNDS + 1):
            for name, (target, running) in list(targets.items())[:: 1 if number % 2 else -1]:
                used = _cpu(running)
                load = target.load(SECONDS, CONNECTIONS)
                # The first round warms up both sides. Writes of the log after a round count in the next one.
                if number:
                    spent[name].append((_cpu(running) - used) / load.rate / SECONDS * 1e6)
    figures = {name: median(each) for name, each in spent.items()}
    say(f"\n| side | µs of processor time for a request, median of {ROUNDS} rounds |\n|---|---:|")
    for name, figure in figures.items():
        say(f"| {name} | {figure:.1f} |")
    return {"serving_ratio": round(figures[other] / figures["log on"], 3)}


def _cpu(running: psutil.Process) -> float:
    times = running.cpu_times()
    return float(times.user + times.system)
