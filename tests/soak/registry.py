"""Twenty processes promote at once, and processes are killed between steps; the registry must stay consistent.

python -m tests.soak.registry [--share 0.1] [--warehouse-url URL] [--seed N]

The race has 20 processes x 50 promotions. The kills come in groups: a few processes promote, roll back or
reconcile at the same time, and each is killed before a random step. A step is a call of MLflow or of the
ledger. Then one call runs without a kill, and the registry is checked.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

RACERS, PROMOTIONS, KILLS = 20, 50, 200
CROWD = 4
VERSIONS = 4
STEPS = 40
"""The highest random step to kill at; a promotion has about 25, so that some kills come too late."""

RACE_SECONDS, ACT_SECONDS = 1800, 120


@dataclass(frozen=True)
class Addresses:
    """The addresses of the registry."""

    tracking_uri: str
    warehouse_url: str


@dataclass
class Tally:
    """The counts. All except the first two should be zero."""

    promotions: int = 0
    kills: int = 0
    two_productions: int = 0
    broken_chain: int = 0
    unreconciled: int = 0
    taken_for_outside: int = 0
    errors: list[str] = field(default_factory=list)


class Mortal:
    """Pass calls on to `target`, and kill this process after a number of calls."""

    left = 0

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def step(*args: Any, **kwargs: Any) -> Any:
            if Mortal.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            Mortal.left -= 1
            return found(*args, **kwargs)

        return step


def opened(addresses: Addresses) -> Any:
    from dosel.db.engine import connect
    from dosel.registry.ledger import PromotionLedger
    from dosel.registry.registry import Registry

    return Registry(addresses.tracking_uri, PromotionLedger(connect(addresses.warehouse_url)))


def race(addresses: Addresses, number: int, promotions: int, seed: int, start: Any, done: Any) -> None:
    """One process of the race: a number of promotions of random versions."""
    registry, rng = opened(addresses), random.Random(seed)
    versions = [registry.version(model(), n) for n in range(1, VERSIONS + 1)]
    start.wait()
    for _ in range(promotions):
        registry.promote(rng.choice(versions), f"racer {number}", "the race")
        with done.get_lock():
            done.value += 1


def act(addresses: Addresses, seed: int, mortal: bool) -> None:
    """Promote, roll back or reconcile; a mortal process is killed before one of the steps."""
    from dosel.errors import PromotionRefused

    rng, registry = random.Random(seed), opened(addresses)
    versions = [registry.version(model(), n) for n in range(1, VERSIONS + 1)]
    if mortal:
        Mortal.left = rng.randrange(STEPS)
        registry._store, registry._ledger = Mortal(registry._store), Mortal(registry._ledger)
    acts: Sequence[Callable[[], object]] = (
        lambda: registry.promote(rng.choice(versions), "the soak", "a promotion"),
        lambda: registry.promote(rng.choice(versions), "the soak", "a promotion"),
        lambda: registry.roll_back(model(), "the soak", "a rollback"),
        lambda: registry.reconcile(model()),
    )
    with suppress(PromotionRefused):
        rng.choice(acts)()


def model() -> str:
    from dosel.usecases.covertype import COVERTYPE

    return COVERTYPE.model_name


def prepare(addresses: Addresses, folder: Path) -> None:
    """Log and register small models; the first one is in Production."""
    import mlflow
    from sklearn.tree import DecisionTreeClassifier

    from dosel.model import tags
    from dosel.model.digest import digest
    from dosel.model.facts import Facts
    from dosel.model.fingerprint import declaration
    from dosel.rows.frames import frame
    from dosel.training import tracking
    from dosel.training.preprocessing import pipeline
    from dosel.usecases.covertype import COVERTYPE

    mlflow.set_tracking_uri(addresses.tracking_uri)
    if mlflow.get_experiment_by_name(COVERTYPE.experiment) is None:
        mlflow.create_experiment(COVERTYPE.experiment, (folder / "artifacts").as_uri())
    mlflow.set_experiment(COVERTYPE.experiment)
    example = frame(COVERTYPE, [COVERTYPE.example, COVERTYPE.example])
    fitted = pipeline(COVERTYPE, DecisionTreeClassifier()).fit(example, list(COVERTYPE.target.labels)[:2])
    facts = Facts(tags={tags.MODEL_DIGEST: digest(fitted)}, declaration=declaration(COVERTYPE))
    registry = opened(addresses)
    for _ in range(VERSIONS):
        with mlflow.start_run() as run:
            tracking.log_model(COVERTYPE, run, fitted, facts, registry.ledger)
        registry.register(COVERTYPE, run.info.run_id)
    registry.promote(registry.version(model(), 1), "the soak", "the first")


def look(registry: Any, tally: Tally) -> None:
    """Check the registry after all processes have ended, and count inconsistencies."""
    entries, staged = registry.ledger.history(model()), registry.store.registered(model()).staged
    last = entries[-1]
    tally.two_productions += len(staged) > 1
    before = [None, *(entry.to_version for entry in entries)][:-1]
    whole = [entry.from_version for entry in entries] == before
    tally.broken_chain += not (whole and [e.sequence for e in entries] == list(range(1, len(entries) + 1)))
    aliases = [registry.store.alias(model(), alias) for alias in ("production", "previous")]
    tally.unreconciled += (staged, aliases) != ({last.to_version}, [last.to_version, last.from_version])
    tally.taken_for_outside = sum(e.evidence.kind == "followed" for e in entries) + len(registry.ledger.notes(model()))


def run_race(processes: Any, addresses: Addresses, racers: int, promotions: int, seed: int, tally: Tally) -> None:
    start, done = processes.Barrier(racers), processes.Value("i", 0)
    crowd = [
        processes.Process(target=race, args=(addresses, i, promotions, seed + i, start, done)) for i in range(racers)
    ]
    registry = opened(addresses)
    for process in crowd:
        process.start()
    ends = time.monotonic() + RACE_SECONDS
    while any(process.is_alive() for process in crowd) and time.monotonic() < ends:
        # During the race, too, there is never more than one version in Production.
        tally.two_productions += len(registry.store.registered(model()).staged) > 1
        crowd[0].join(0.2)
    collect(crowd, tally)
    tally.promotions += done.value
    look(registry, tally)


def run_kills(processes: Any, addresses: Addresses, kills: int, seed: int, tally: Tally) -> None:
    rng, registry = random.Random(seed), opened(addresses)
    while tally.kills < kills and not tally.errors:
        size = min(CROWD, kills - tally.kills)
        crowd = [processes.Process(target=act, args=(addresses, rng.getrandbits(32), True)) for _ in range(size)]
        for process in crowd:
            process.start()
        tally.kills += collect(crowd, tally)
        survivor = processes.Process(target=act, args=(addresses, rng.getrandbits(32), False))
        survivor.start()
        collect([survivor], tally)
        look(registry, tally)


def collect(crowd: Sequence[BaseProcess], tally: Tally) -> int:
    """Wait for processes; return the number that was killed as planned."""
    killed = 0
    for process in crowd:
        process.join(ACT_SECONDS)
        if process.exitcode == -signal.SIGKILL:
            killed += 1
        elif process.exitcode != 0:
            process.kill()
            tally.errors.append(f"a process ended with {process.exitcode}")
    return killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1, help="how much of the whole soak")
    parser.add_argument("--warehouse-url", help="an empty schema; left out: a SQLite file")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    # Processes are forked from one that has imported everything and opened nothing.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["mlflow", "dosel.registry", "dosel.pipeline"])
    with tempfile.TemporaryDirectory(prefix="dosel-soak-") as name:
        folder = Path(name)
        warehouse = asked.warehouse_url or f"sqlite:///{folder / 'warehouse.db'}"
        addresses, tally = Addresses(f"sqlite:///{folder / 'mlflow.db'}", warehouse), Tally()
        prepare(addresses, folder)
        start = time.monotonic()
        run_race(processes, addresses, RACERS, max(1, round(PROMOTIONS * asked.share)), asked.seed, tally)
        raced = time.monotonic()
        run_kills(processes, addresses, round(KILLS * asked.share), asked.seed, tally)
        killed = time.monotonic()
    report(tally, raced - start, killed - raced)
    sys.exit(bool(tally.errors))


def report(tally: Tally, race_seconds: float, kill_seconds: float) -> None:
    figures = vars(tally) | {"errors": len(tally.errors)}
    lines = ["| what | how often |", "|---|---|", *(f"| {n.replace('_', ' ')} | {v} |" for n, v in figures.items())]
    lines += [*tally.errors, f"race {race_seconds:.0f} s, kills {kill_seconds:.0f} s"]
    sys.stdout.write("\n".join([*lines, f"RESULT {json.dumps(figures)}", ""]))


if __name__ == "__main__":
    main()
