"""Kills (`kill -9`) the worker, the data API and the database, mostly during a write, and checks the data store.

    python -m tests.soak.ingest [--kills 200] [--seed 0]

A worker pulls batches from a real data API into a real MariaDB and notes each that was acknowledged. One of the three
is killed at a random moment of a batch's transaction, and then started again. In the end,
the data store must have every acknowledged batch once and complete: with the ledger's number of rows, and with the
acknowledged digest of its raw rows.
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import text

from benchmarks.installation import HOST, free_port, local_server, process
from dosel.db.engine import connect
from dosel.embedded.local_databases import MariaDB
from dosel.embedded.processes import Processes
from dosel.errors import AccountingError
from dosel.pipeline import Pipeline
from dosel.settings import Settings
from dosel.usecases.covertype import COVERTYPE
from tests.raw_tables import raw_digest
from tests.soak import ingest_worker

GROUP = 6
VICTIMS = {"worker": 0.8, "database": 0.1, "data API": 0.1}
TIMEOUT_SECONDS = 300
FIRST_GUESS_SECONDS = 0.05


@dataclass
class Tally:
    """Counts of kills and of their effects."""

    kills: Counter[str] = field(default_factory=Counter)
    in_transaction: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    half: int = 0


class DataApi:
    """The data API as a process of which each call returns the next batch."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.url = ""
        self._log = folder / "api.log"
        self._environment = os.environ | {
            "DATA_API_FETCH": "never",
            "DATA_API_ROWS": "116203",
            "DATA_API_SEED": str(seed),
            "DATA_API_STATE_DIR": str(folder / "api"),
            "MIN_UPDATE_TIME": "0",
            "BATCH_FRACTION": "0.3",
        }
        self._environment.pop("DATA_API_CSV", None)
        self._running = ExitStack()

    def start(self) -> None:
        """Start it at a free port: another process may use the port of the one that was killed."""
        port = free_port()
        self.url = f"http://{HOST}:{port}"
        command = [sys.executable, "-m", "uvicorn", "external.main:app", "--host", HOST, "--port", str(port)]
        started = process(command, self._environment, f"{self.url}/health", self._log, TIMEOUT_SECONDS)
        self._process, _ = self._running.enter_context(started)

    def restart_numbering(self) -> None:
        url = f"{self.url}/restart_data_generation"
        httpx.get(url, params={"group_number": GROUP}, timeout=30).raise_for_status()

    def kill(self) -> None:
        self._process.kill()
        self._running.close()

    def stop(self) -> None:
        self._running.close()


class Soak:
    """Kill processes until the number of kills is reached."""

    def __init__(self, database: MariaDB, kills: int, seed: int) -> None:
        folder = database.home
        self._kills = kills
        self._random = random.Random(seed)
        self._database = database
        self._api = DataApi(folder, seed)
        self._acknowledged = folder / "acknowledged"
        self._acknowledged.touch()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.soak.ingest_worker"])
        self._state = self._context.Value("i", ingest_worker.IDLE, lock=False)
        self._took = self._context.Value("d", FIRST_GUESS_SECONDS, lock=False)
        self.tally = Tally()

    def run(self, progress: Progress) -> Tally:
        task = progress.add_task("kills", total=self._kills)
        self._api.start()
        try:
            self._finish(self._worker())
            while self.tally.kills.total() < self._kills:
                self._kill_one_worker()
                progress.update(task, completed=self.tally.kills.total())
            self._api.restart_numbering()
            worker = self._worker()
            self._finish(worker)
            if worker.exitcode:
                raise SystemExit("the last run, in which nothing was killed, failed")
            self._compare()
        finally:
            self._api.stop()
        return self.tally

    def _worker(self) -> Any:
        self._state.value = ingest_worker.IDLE
        arguments = (self._database.url(), self._api.url, GROUP, str(self._acknowledged), self._state, self._took)
        worker = self._context.Process(target=ingest_worker.work, args=arguments)
        worker.start()
        return worker

    def _kill_one_worker(self) -> None:
        """Run one worker and kill it while it writes, unless the source ends before."""
        victim = self._random.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        skipped, share = self._random.randrange(3), self._random.random()
        worker = self._worker()
        for _ in range(skipped):
            self._await(worker, ingest_worker.OPEN)
            self._await(worker, ingest_worker.IDLE)
        self._await(worker, ingest_worker.OPEN)
        if worker.is_alive():
            time.sleep(share * self._took.value)
            self._kill(victim, worker)
        self._finish(worker)
        if worker.exitcode == 0:
            self._api.restart_numbering()

    def _await(self, worker: Any, state: int) -> None:
        while worker.is_alive() and self._state.value != state:
            time.sleep(0.0005)

    def _kill(self, victim: str, worker: Any) -> None:
        if victim == "worker":
            # The state is read after the kill, when it cannot change.
            worker.kill()
            worker.join(TIMEOUT_SECONDS)
        inside = self._state.value == ingest_worker.OPEN
        if victim == "database":
            leader = Processes(self._database.home).leader(self._database.name)
            assert leader is not None
            leader.kill()
            leader.wait(TIMEOUT_SECONDS)
            self._finish(worker)
            self._database.start()
        elif victim == "data API":
            self._api.kill()
            self._finish(worker)
            self._api.start()
        self.tally.kills[victim] += 1
        self.tally.in_transaction += inside

    def _finish(self, worker: Any) -> None:
        worker.join(TIMEOUT_SECONDS)
        if worker.is_alive():
            worker.kill()
            raise SystemExit("a worker did not end")

    def _compare(self) -> None:
        """Compare the acknowledged batches with the stored ones."""
        tally = self.tally
        store = Pipeline(COVERTYPE, Settings(warehouse_url=self._database.url())).batches
        ledger = {record.id: record for record in store.records()}
        notes = [line.split() for line in self._acknowledged.read_text().splitlines()]
        tally.acknowledged = len(notes)
        for number, epoch, batch, digest in notes:
            record = ledger.get(int(number))
            if record is None or (record.epoch, str(record.number), record.digest) != (epoch, batch, digest):
                tally.lost += 1
        names = Counter((record.stream, record.epoch, record.number) for record in ledger.values())
        tally.doubled += sum(count - 1 for count in names.values())
        engine = connect(self._database.url())
        with engine.begin() as connection:
            tally.doubled += connection.scalar(text("SELECT COUNT(*) - COUNT(DISTINCT row_key) FROM covertype_clean"))
        tally.half += sum(raw_digest(engine, COVERTYPE, record.id) != record.digest for record in ledger.values())
        try:
            store.audit()
        except AccountingError as error:
            Console(stderr=True).print(str(error))
            tally.half += 1


def soak(kills: int, seed: int) -> Tally:
    """Run `kills` kills on a new server and data API."""
    with local_server(MariaDB) as database, Progress(console=Console(stderr=True), transient=True) as progress:
        return Soak(database, kills, seed).run(progress)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    start = time.monotonic()
    tally = soak(asked.kills, asked.seed)
    console = Console(highlight=False, soft_wrap=True)
    console.print("| killed | times |\n|---|--:|")
    for victim, count in tally.kills.items():
        console.print(f"| {victim} | {count} |")
    console.print(f"\n{tally.acknowledged} batches acknowledged; {time.monotonic() - start:.0f} s")
    result = vars(tally) | {"kills": tally.kills.total()}
    del result["acknowledged"]
    console.print(f"RESULT {json.dumps(result)}")
    if tally.lost or tally.doubled or tally.half:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
