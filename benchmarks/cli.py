"""Measures commands of `dosel` that only read the ledgers: each is a process of its own.

    make bench-cli

Processor time is that of the whole process, which depends less on other load than the time on the clock. The ledgers
have 100 batches, 100 versions and 100 promotions.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
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

RUNS = 9
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
    """Seconds of a command, the medians of its runs."""

    cpu: float
    clock: float


def main() -> None:
    with TemporaryDirectory(prefix="dosel-benchmark-") as name:
        settings = Settings(home=Path(name), signing_key=str(Path(name) / "signing-key.pem"))
        fill(settings)
        environment = os.environ | {"DOSEL_HOME": name, "DOSEL_SIGNING_KEY": settings.signing_key}
        costs = {command: measured(command, environment) for command in (*OTHERS, *DOSEL)}
    bare = costs[OTHERS[0]].cpu
    say(f"Medians of {RUNS} runs in turn, output into a pipe\n")
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


def measured(command: str, environment: dict[str, str]) -> Cost:
    """The cost of a command. Its first run is not counted, since it writes compiled files."""
    program, *arguments = command.split()
    run = (sys.executable, "-m", program, *arguments) if program != "python" else (sys.executable, *arguments)
    costs = [_once(run, environment) for _ in range(RUNS + 1)][1:]
    return Cost(median(cost.cpu for cost in costs), median(cost.clock for cost in costs))


def _once(command: tuple[str, ...], environment: dict[str, str]) -> Cost:
    before, began = getrusage(RUSAGE_CHILDREN), perf_counter()
    # `dosel status` exits with 1, since nothing runs.
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    after, clock = getrusage(RUSAGE_CHILDREN), perf_counter() - began
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, clock)


if __name__ == "__main__":
    main()
