"""Measures commands of `dosel` that only read the ledgers: each is a process of its own.

    make bench-cli

The commands run in turn, and the least time of each is the one that other load disturbed least. Processor time is that
of the whole process. The ledgers have 100 batches, 100 versions and 100 promotions.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

from benchmarks.installation import OneByOne, say
from dosel.db.engine import connect
from dosel.model.facts import Facts
from dosel.model.tags import FAMILY
from dosel.quality import check
from dosel.registry.ledger import Evidence, PromotionLedger
from dosel.registry.manifests import Manifest
from dosel.registry.verdicts import Verdict
from dosel.rows.text import as_text
from dosel.settings import Settings
from dosel.signing import Keys
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore
from external.columns import as_words
from external.generator import generate

ENTRIES = 100
ROWS = 20
"""Rows of each batch."""

RUNS = 5
NAME = COVERTYPE.name

DOSEL = tuple(
    f"dosel {words}"
    for words in (
        *("--help", "use-cases", f"history {NAME}", f"versions {NAME}", f"batches {NAME}", f"quarantine {NAME}"),
        *("events", "approvals", "shadow", "verify", "check", "open", "status"),
    )
)
OTHERS = ("python -c pass", "mlflow --version")
"""For comparison: the interpreter alone, and what importing MLflow takes."""


class Cost(NamedTuple):
    """Seconds of a command: processor time, and time on the clock."""

    cpu: float
    clock: float


def main() -> None:
    with TemporaryDirectory(prefix="dosel-benchmark-") as name:
        settings = Settings(home=Path(name), signing_key=str(Path(name) / "signing-key.pem"))
        fill(settings)
        environment = os.environ | {"DOSEL_HOME": name, "DOSEL_SIGNING_KEY": settings.signing_key}
        costs = least({command: run_of(command) for command in (*OTHERS, *DOSEL)}, environment)
    bare = costs[OTHERS[0]].cpu
    say(f"The least of {RUNS} runs in turn, output into a pipe\n")
    say("| command | processor, s | of `python -c pass` | on the clock, s |")
    say("|---|---:|---:|---:|")
    for command, cost in costs.items():
        say(f"| `{command}` | {cost.cpu:.2f} | {cost.cpu / bare:.1f} | {cost.clock:.2f} |")
    say(f"RESULT {json.dumps({command: round(cost.cpu, 3) for command, cost in costs.items()})}")


def fill(settings: Settings) -> None:
    """Store batches and write entries of the ledgers."""
    engine = connect(settings.warehouse_url)
    store, ledger = BatchStore(engine, COVERTYPE), PromotionLedger(engine, Keys(settings))
    rows = as_words(generate(ENTRIES * ROWS, seed=1), first_class=1)
    parts = (rows[start : start + ROWS] for start in range(0, len(rows), ROWS))
    source = OneByOne([partial(list, part) for part in parts])
    while (batch := source.next_batch()) is not None:
        text = as_text(batch.rows, COVERTYPE.columns)
        checked = check(COVERTYPE, batch.rows, batch.coding, text)
        store.store(batch, checked.accepted, checked.refused, text)
    for version in range(1, ENTRIES + 1):
        facts = Facts({"holdout_accuracy": 0.5 + version / 1000}, {}, {FAMILY: COVERTYPE.families[0].name})
        run = f"{version:032x}"
        ledger.record_manifest(Manifest(COVERTYPE.model_name, version, run, {"model.skops": f"{version:064x}"}, facts))
        ledger.add_verdict(COVERTYPE.model_name, version, run, Verdict(True, "better"))
        ledger.append(COVERTYPE.model_name, version, "a benchmark", "better", Evidence("gate", run))


def run_of(command: str) -> tuple[str, ...]:
    """A command as arguments of a process of this Python."""
    program, *arguments = command.split()
    return (sys.executable, *arguments) if program == "python" else (sys.executable, "-m", program, *arguments)


def least(commands: dict[str, tuple[str, ...]], environment: dict[str, str]) -> dict[str, Cost]:
    """The least cost of each command."""
    rounds = [{name: _once(command, environment) for name, command in commands.items()} for _ in range(RUNS)]
    return {name: Cost(*map(min, zip(*(costs[name] for costs in rounds), strict=True))) for name in commands}


def _once(command: tuple[str, ...], environment: dict[str, str]) -> Cost:
    before, began = getrusage(RUSAGE_CHILDREN), perf_counter()
    # `dosel status` exits with 1, since nothing runs.
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    after, clock = getrusage(RUSAGE_CHILDREN), perf_counter() - began
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, clock)


if __name__ == "__main__":
    main()
