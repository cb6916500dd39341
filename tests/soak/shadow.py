"""Starts, promotes, stops and rolls back shadows under load, and kills some of these operations.

    make soak-shadow             a thousand operations, a hundred of them killed; OPERATIONS=50 KILLS=5 for a short one

Each operation is a process of its own. No request may fail or be answered by a version not in Production, each decision
has its evidence, and after each operation, killed or not, MLflow and the API follow the ledger.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from datetime import timedelta
from multiprocessing import get_context
from typing import Literal

import httpx

from benchmarks.installation import Installation, installation, say, wait_until
from benchmarks.serving import uvicorn
from dosel.db.engine import connect
from dosel.monitor.shadowing import decide, end_by_hand
from dosel.registry.projection import CHALLENGER, PRODUCTION
from dosel.registry.registry import Registry
from dosel.registry.shadows import ShadowRecord
from dosel.settings import Settings
from dosel.usecases.covertype import COVERTYPE
from tests.soak.serving import FORESTS, Answers, answering, sending

OPERATIONS, KILLS = 1_000, 100
LONGEST_SECONDS = 1.0
"""A process is killed within this time after its start."""

USE_CASE = COVERTYPE.with_shadow()
MODEL = USE_CASE.model_name

Operation = Literal["start", "stop", "refuse", "promote", "roll back"]


def operate(home: str, tracking_uri: str, operation: Operation, version: int) -> None:
    """Run one operation, and the decisions that follow from it."""
    settings = Settings.model_validate({"home": home, "tracking_uri": tracking_uri})
    registry, engine = Registry.opened(settings), connect(settings.warehouse_url)
    match operation:
        case "start":
            entry = registry.last_promotion(MODEL)
            assert entry is not None
            challenger = registry.version(MODEL, version)
            registry.start_shadow(challenger, "challenger", timedelta(days=1), "soak", "a soak", entry.sequence)
        case "roll back":
            end_by_hand(USE_CASE, registry, engine, "control", "promote", "soak", operation)
        case _:
            end_by_hand(USE_CASE, registry, engine, "challenger", operation, "soak", operation)
    decide(USE_CASE, registry, engine)


def run(operations: int = OPERATIONS, kills: int = KILLS) -> dict[str, object]:
    """The figures of the soak."""
    with (
        installation(*FORESTS) as here,
        uvicorn(here, "app.main:create_app", "/readyz", DOSEL_SHADOW="true") as (url, _, _),
    ):
        return _Soak(here, url, operations, kills).run()


class _Soak:
    def __init__(self, here: Installation, url: str, operations: int, kills: int) -> None:
        self.here = here
        self.url = url
        self.registry = Registry.opened(here.settings)
        self.random = random.Random(1)
        self.operations = operations
        self.killed = set(self.random.sample(range(operations), kills))
        self.requests = Answers()
        self.moves = [(float("-inf"), float("-inf"), here.versions[0])]
        self.count: Counter[str] = Counter()
        self.processes = get_context("forkserver")
        # Forked from a process that has imported everything and opened nothing.
        self.processes.set_forkserver_preload(["__main__", "mlflow.sklearn", "dosel.monitor.shadowing"])

    def run(self) -> dict[str, object]:
        began = time.monotonic()
        with sending(self.requests, self.url), httpx.Client(timeout=30) as client:
            for number in range(self.operations):
                self._operate(number, client)
                if (number + 1) % 100 == 0:
                    say(f"{number + 1:5} operations, {dict(self.count)}")
        for failure in self.requests.failed[:5]:
            say(f"failed: {failure}")
        history, shadows = self.registry.ledger.history(MODEL), self.registry.ledger.shadows(MODEL)
        decided = [shadow.end for shadow in shadows if shadow.end and shadow.end.outcome != "superseded"]
        without = sum(not end.evidence for end in decided) + sum(entry.evidence.live is None for entry in history[1:])
        say(f"\n{len(shadows)} shadows and {len(history)} entries in {time.monotonic() - began:.0f} s")
        return {
            "operations": self.operations,
            "kills": self.count["killed"],
            "requests": len(self.requests.answers) + len(self.requests.failed),
            "failed": len(self.requests.failed) + self.count["failed"],
            "wrong_version": self.requests.wrong(self.moves),
            "without_evidence": without,
            "differs_from_ledger": self.count["differs"],
        }

    def _operate(self, number: int, client: httpx.Client) -> None:
        before = self.registry.last_promotion(MODEL)
        assert before is not None
        operation, version = self._choose(self.registry.ledger.open_shadows(MODEL), before.to_version)
        began = time.monotonic()
        arguments = (str(self.here.settings.home), self.here.settings.tracking_uri, operation, version)
        process = self.processes.Process(target=operate, args=arguments)
        process.start()
        if number in self.killed:
            process.join(self.random.uniform(0, LONGEST_SECONDS))
            process.kill()
        process.join(60)
        self.count[operation] += 1
        if number in self.killed and process.exitcode != 0:
            self.count["killed"] += 1
        elif process.exitcode != 0:
            say(f"{operation} ended with {process.exitcode}")
            self.count["failed"] += 1
        after = self.registry.last_promotion(MODEL)
        assert after is not None
        if after.sequence != before.sequence:
            self.moves.append((began, time.monotonic(), after.to_version))
        self._compare(client, after.to_version)

    def _choose(self, running: list[ShadowRecord], champion: int) -> tuple[Operation, int]:
        """An operation that is possible now, and the version to start."""
        roles = {shadow.role for shadow in running}
        possible: list[Operation] = ["stop", "refuse", "promote", "promote"] if "challenger" in roles else ["start"]
        if "control" in roles:
            possible.append("roll back")
        others = [version for version in self.here.versions if version != champion]
        return self.random.choice(possible), self.random.choice(others)

    def _compare(self, client: httpx.Client, champion: int) -> None:
        """Wait until the API and MLflow show the state in the ledger."""
        wait_until(lambda: answering(client, self.url) == champion, 20, lambda: f"version {champion} to answer")
        challenger = next((s.version for s in self.registry.ledger.open_shadows(MODEL) if s.role == "challenger"), None)
        self.registry.reconcile(MODEL)
        store = self.registry.store
        if (store.alias(MODEL, PRODUCTION), store.alias(MODEL, CHALLENGER)) != (champion, challenger):
            self.count["differs"] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=OPERATIONS)
    parser.add_argument("--kills", type=int, default=KILLS)
    asked = parser.parse_args()
    result = run(asked.operations, asked.kills)
    say(f"RESULT {json.dumps(result)}")
    sys.exit(any(result[name] for name in ("failed", "wrong_version", "without_evidence", "differs_from_ledger")))


if __name__ == "__main__":
    main()
