"""Many processes that write to one SQLite data store while the API logs predictions and takes feedback."""

import json
import multiprocessing
import os
import select
import sys
import time
from contextlib import closing
from http.client import HTTPConnection
from subprocess import PIPE, Popen
from uuid import uuid4

import sqlalchemy as sql

from dosel.db.engine import connect, reading
from dosel.db.tables import ANSWERS
from dosel.registry.ledger import PromotionLedger
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.predictions import AnswerRecord, PredictionStore
from tests.attack.bodies import JSON, ROW
from tests.attack.target import HOST, Attack, Outcome, Target, ask

WRITERS = 8
CHUNK = 500
STORM_SECONDS = 8.0
SLOWEST_SECONDS = 10.0
"""Longest response time while the writers run."""

READS = (f"/models/{COVERTYPE.model_name}/history", "/events", f"/use-cases/{COVERTYPE.name}/batches")


def lock_storm(target: Target) -> Outcome:
    found, name = Outcome(), f"storm-{uuid4().hex[:8]}"
    url = target.environment["DOSEL_WAREHOUSE_URL"]
    # The writers also end with this process, which closes their input.
    writers = Popen([sys.executable, "-m", "tests.attack.locks", url, name], stdin=PIPE, stdout=PIPE, text=True)
    assert writers.stdin is not None
    assert writers.stdout is not None
    writers.stdout.readline()
    ids, until = [], time.monotonic() + STORM_SECONDS
    while time.monotonic() < until:
        ids.append(_predicted(target.port))
        for path in READS:
            began = time.monotonic()
            status, _ = ask(target.port, "GET", path)
            found.answers[status] += 1
            if status != "200" or time.monotonic() - began > SLOWEST_SECONDS:
                found.failed = f"{path}: {status} after {time.monotonic() - began:.1f} s"
    writers.stdin.close()
    # Each writer ends after its last write.
    written = dict(line.split() for line in writers.stdout)
    with reading(connect(url)) as connection:
        mine = ANSWERS.c.trace_id
        query = sql.select(mine, sql.func.count()).where(mine.startswith(name)).group_by(mine)
        stored = {str(trace): str(count) for trace, count in connection.execute(query)}
    if len(written) != WRITERS or stored != {trace: count for trace, count in written.items() if count != "0"}:
        found.failed = f"written: {written}; stored: {stored}"
    # Feedback is accepted only for logged answers.
    truths = json.dumps([{"request_id": each, "truth": 1} for each in ids]).encode()
    status = _accepted(target.port, truths)
    found.answers[status] += 1
    if status != "200":
        found.failed = f"feedback on {len(ids)} answers: {status}"
    return found


def write(url: str, trace: str, end: int) -> None:
    """Write answers and notes until the pipe `end` ends, then print how many answers were stored."""
    engine = connect(url)
    store, ledger, stored = PredictionStore(engine, 10_000_000), PromotionLedger(engine), 0
    while not select.select([end], [], [], 0)[0]:
        ids = (f"{trace}-{number}" for number in range(stored, stored + CHUNK))
        model = COVERTYPE.model_name
        store.append([AnswerRecord(each, 1, 1, trace, 0.0, "storm", model, 1, "{}", 0, "{}", 1) for each in ids])
        stored += CHUNK
        ledger.note(model, f"{trace}: {stored}")
    os.write(sys.stdout.fileno(), f"{trace} {stored}\n".encode())


def start(url: str, name: str) -> None:
    """Start the writers, then print a line."""
    # Forked, so that the modules are imported once.
    fork = multiprocessing.get_context("fork")
    # A process of multiprocessing has another standard input.
    end = os.dup(sys.stdin.fileno())
    writers = [fork.Process(target=write, args=(url, f"{name}-{number}", end)) for number in range(WRITERS)]
    sys.stdout.write("they write\n")
    sys.stdout.flush()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()


def _predicted(port: int) -> str:
    """Request a prediction and return its request id."""
    with closing(HTTPConnection(HOST, port, timeout=30)) as connection:
        connection.request("POST", "/predict", ROW, JSON)
        response = connection.getresponse()
        response.read()
        return str(response.getheader("X-Dosel-Request-ID"))


def _accepted(port: int, truths: bytes) -> str:
    """Give feedback until it is accepted: the log may wait for its next attempt to write."""
    until = time.monotonic() + 35
    while True:
        status, _ = ask(port, "POST", f"/feedback/{COVERTYPE.name}", truths, JSON)
        if status != "404" or time.monotonic() > until:
            return status


ATTACKS = (Attack(f"{WRITERS} processes that lock SQLite", "lose an entry or delay reading", lock_storm),)

if __name__ == "__main__":
    start(*sys.argv[1:])
