"""Scoring, feedback and the delivery of messages are killed 200 times; nothing may be lost or counted twice.

python -m tests.soak.monitor [--kills 200] [--seed 1] [--warehouse-url URL]

Before each kill there is new work: a labelled batch, a request with answers and their feedback, and some events. A
child process does the work that is due and is killed after a random time. At the end, one child is not killed, and
the tables and the received messages are compared with the work.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from sqlalchemy import Engine, func, select

from dosel.db.engine import connect
from dosel.db.tables import FEEDBACK
from dosel.monitor.delivery import deliver
from dosel.monitor.feedback import FeedbackStore
from dosel.monitor.feedback_rows import GivenTruth
from dosel.monitor.truths import TruthStore
from dosel.monitor.watch import Watch
from dosel.quality import check
from dosel.registry.ledger import PromotionLedger
from dosel.settings import Settings
from dosel.usecases.penguins import PENGUINS
from dosel.warehouse.batches import BatchStore
from dosel.warehouse.events import Event, EventStore
from dosel.warehouse.predictions import AnswerRecord, PredictionStore
from tests.integration.webhook import webhook
from tests.integration.worlds import batch

ROWS, ANSWERS, EVENTS = 30, 30, 50
"""New work before each kill. A kill repeats at most one message, which arrived and is not marked yet."""

NAME = PENGUINS.model_name


@dataclass
class Work:
    """All work so far."""

    feedback: list[list[GivenTruth]] = field(default_factory=list)
    incidents: list[str] = field(default_factory=list)
    rows: int = 0


class Registry:
    """A registry with version 1 in Production, whose model always predicts the first class."""

    def __init__(self, engine: Engine) -> None:
        self.ledger = PromotionLedger(engine)

    def production(self, name: str) -> Any:
        return SimpleNamespace(version=1, tags={})

    def last_promotion(self, name: str) -> Any:
        return self.ledger.last(name)

    def load(self, version: Any) -> Any:
        return SimpleNamespace(predict=lambda table: np.zeros(len(table), np.int64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--warehouse-url", default="")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, webhook() as received:
        url = asked.warehouse_url or f"sqlite:///{Path(folder, 'warehouse.db')}"
        settings = Settings.model_validate({"home": folder, "warehouse_url": url, "notify_webhook": received.url})
        PromotionLedger(connect(url)).append(NAME, 1, "a soak", "first")
        dice, work, kills = random.Random(asked.seed), Work(), 0
        add_work(settings, work, 0, dice)
        longest = run_without_kill(settings, work)
        for number in range(1, asked.kills + 1):
            add_work(settings, work, number, dice)
            child = started(settings, work)
            time.sleep(dice.uniform(0, longest))
            os.kill(child, signal.SIGKILL)
            kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        run_without_kill(settings, work)
        result = {
            "kills": kills,
            **compare_truths(settings, work),
            **compare_messages(work, Counter(received.incidents)),
        }
    sys.stdout.write(f"RESULT {json.dumps(result)}\n")
    wrong = [result[name] for name in ("labels_lost", "labels_doubled", "truths_lost", "truths_doubled", "events_lost")]
    sys.exit(any(wrong) or result["events_repeated"] > kills or result["events_repeated_share"] > 0.01)


def add_work(settings: Settings, work: Work, number: int, dice: random.Random) -> None:
    engine = connect(settings.warehouse_url)
    rows = [[*map(str, PENGUINS.example.values()), str(dice.randrange(3))] for _ in range(ROWS)]
    for i, row in enumerate(rows):
        # The rows of a batch differ, so that none is a duplicate.
        row[1] = f"{25 + (number * ROWS + i) % 4_500 / 100:.2f}"
        row[2] = f"{10 + (number * ROWS + i) // 4_500 / 100:.2f}"
    checked = check(PENGUINS, rows, "")
    record = BatchStore(engine, PENGUINS).store(batch(rows, number + 1), checked.accepted, checked.refused)
    assert record is not None
    work.rows += record.rows_clean
    request, at = f"request {number}", time.time()
    PredictionStore(engine, 10_000_000).append(
        [
            AnswerRecord(request, i, ANSWERS, None, at, PENGUINS.name, NAME, 1, "{}", -number * ANSWERS - i, "{}", 0)
            for i in range(1, ANSWERS + 1)
        ]
    )
    work.feedback.append([GivenTruth(request, i, dice.randrange(3)) for i in range(1, ANSWERS + 1)])
    for i in range(EVENTS):
        incident = f"incident {number}.{i}"
        EventStore(engine).add(Event(incident, PENGUINS.name, "task failed", incident, "by the soak", "dosel events"))
        work.incidents.append(incident)
    engine.dispose()


def started(settings: Settings, work: Work) -> int:
    """Fork a process that does the work that is due; a new process would mostly import."""
    if child := os.fork():
        return child
    engine = connect(settings.warehouse_url)
    Watch(PENGUINS, Registry(engine), BatchStore(engine, PENGUINS), engine).score_batches()  # type: ignore[arg-type]
    store = FeedbackStore(engine, PENGUINS, PromotionLedger(engine))
    # A client without a response sends its last requests again.
    for given in work.feedback[-3:]:
        store.add(given)
    deliver(engine, settings)
    os._exit(0)


def run_without_kill(settings: Settings, work: Work) -> float:
    """Do all work that is due in a child that is not killed, with all feedback again; return its seconds."""
    began = time.monotonic()
    _, status = os.waitpid(started(settings, work), 0)
    assert status == 0, "a child failed without being killed"
    seconds = time.monotonic() - began
    engine = connect(settings.warehouse_url)
    store = FeedbackStore(engine, PENGUINS, PromotionLedger(engine))
    for given in work.feedback:
        store.add(given)
    engine.dispose()
    return seconds


def compare_truths(settings: Settings, work: Work) -> dict[str, int]:
    """The numbers of labelled batch rows and truths, each with its expected number."""
    engine = connect(settings.warehouse_url)
    parts = TruthStore(engine).of(NAME, 1)
    labels = {source: sum(len(p.truth) for p in parts if p.source == source) for source in ("batch", "feedback")}
    answers = sum(map(len, work.feedback))
    with engine.connect() as connection:
        truths = connection.scalar(select(func.count()).select_from(FEEDBACK)) or 0
    engine.dispose()
    off = {"labels": labels["batch"] + labels["feedback"] - work.rows - answers, "truths": truths - answers}
    return {
        "labels": labels["batch"] + labels["feedback"],
        **{f"{name}_lost": max(0, -difference) for name, difference in off.items()},
        **{f"{name}_doubled": max(0, difference) for name, difference in off.items()},
    }


def compare_messages(work: Work, arrived: Counter[str]) -> dict[str, float]:
    repeated = arrived.total() - len(arrived)
    return {
        "events": len(work.incidents),
        "events_lost": len(set(work.incidents) - set(arrived)),
        "events_repeated": repeated,
        "events_repeated_share": round(repeated / len(work.incidents), 4),
    }


if __name__ == "__main__":
    main()
