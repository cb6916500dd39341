"""Attacks with many ordinary calls."""

import csv
import io
import json
import time
from contextlib import closing
from functools import partial
from http.client import HTTPConnection
from threading import Thread

import psutil

from benchmarks.serving import BATCH
from dosel.usecases.covertype import COVERTYPE
from external.columns import as_words
from external.generator import generate
from tests.attack.bodies import CSV, JSON, ROW, SECONDS
from tests.attack.target import HOST, LIMITED_RATE, Attack, Outcome, Target, ask, together

CHECKS = 45
SLOW_SECONDS = {"/healthz": 1.0, "/models": 15.0, "/explain/covertype": 10.0, "/predict?model=random_forest": 35.0}
"""Longest response time of each call while MLflow hangs and `CHECKS` requests make the API check it."""

FEEDBACK_SECONDS = 10.0
"""Longest time of another client's feedback while bulk requests fill the prediction log."""

FORGED = 40

MODEL = f"/models/{COVERTYPE.model_name}"
USE_CASE = f"/use-cases/{COVERTYPE.name}"
READS = (
    *("/models", "/model-info", "/events?limit=1000", "/metrics"),
    *(f"{MODEL}{path}" for path in ("/history", "/versions/1", "/versions/1/card?format=md", "/approvals")),
    *(f"{USE_CASE}{path}" for path in ("/batches?limit=1000", "/quarantine?limit=1000", "/health", "/shadow")),
)
"""The calls that read the data store or the registry."""
COMPARISON = f"{MODEL}/compare?a=1&b=2"
EACH = 6
"""Connections of one client for each of these calls."""

FULLY_GROWN = (40, 60)
"""Trees and depth of version 2: each of these trees votes for one class, so that votes can tie."""
VERSION = "?version=2"
TIES = 16
"""Connections that send a row on which two classes tie."""
MARGIN = 1e-6
CANDIDATES = 20_000


def checks_of_a_hanging_mlflow(target: Target) -> Outcome:
    found = Outcome()
    servers = [psutil.Process(pid) for pid in target.mlflow]
    for server in servers:
        server.suspend()
    try:
        time.sleep(1)
        checks = Thread(target=together, args=([partial(_counted, found, target, "/warmup")] * CHECKS,))
        checks.start()
        time.sleep(1)
        together([partial(_timed, found, target, path, seconds) for path, seconds in SLOW_SECONDS.items()])
        checks.join()
    finally:
        for server in servers:
            server.resume()
    return found


def forged_addresses(target: Target) -> Outcome:
    found, began = Outcome(), time.monotonic()
    for number in range(FORGED):
        headers = {"X-Forwarded-For": f"10.0.0.{number}", "Forwarded": f"for=10.0.0.{number}"}
        status, _ = ask(target.limited_port, "GET", "/use-cases", headers=headers)
        found.answers[status] += 1
    most = LIMITED_RATE * (time.monotonic() - began + 1) + 1
    if found.answers["200"] > most:
        found.failed = f"{found.answers['200']} of {FORGED} passed at {LIMITED_RATE} per second"
    return found


def explanations(target: Target) -> Outcome:
    found = Outcome()
    together([partial(_counted, found, target, "/explain/covertype", ROW)] * 60)
    return found


def reads_of_all_kinds(target: Target) -> Outcome:
    found = Outcome()
    until = time.monotonic() + SECONDS
    together([partial(_again, found, target, "GET", path, None, until) for path in READS for _ in range(EACH)])
    return found


def comparisons(target: Target) -> Outcome:
    """A comparison loads two versions, and has them predict all held-out rows."""
    found = Outcome()
    until = time.monotonic() + SECONDS
    together([partial(_again, found, target, "GET", COMPARISON, None, until)] * 2)
    return found


def rows_for_the_log(target: Target) -> Outcome:
    """Bulk requests bring more rows than are logged, while another client gives feedback on its own answers."""
    found = Outcome()
    until = time.monotonic() + SECONDS
    rows = b"[" + b",".join([ROW] * 100) + b"]"
    bulk = partial(_again, found, target, "POST", BATCH, rows, until)
    together([*[bulk] * 4, partial(_feedback, found, target, until)])
    return found


def _feedback(found: Outcome, target: Target, until: float) -> None:
    """Send rows and the truth about each from another address; each truth has to be accepted in time."""
    with closing(HTTPConnection(HOST, target.port, timeout=60, source_address=("127.0.0.3", 0))) as connection:
        while time.monotonic() < until and not found.failed:
            connection.request("POST", "/predict", ROW, JSON)
            answered = connection.getresponse()
            truth = {"request_id": answered.headers["X-Dosel-Request-ID"], "truth": json.load(answered)["label"]}
            began = time.monotonic()
            connection.request("POST", f"/feedback/{COVERTYPE.name}", json.dumps([truth]).encode(), JSON)
            receipt = connection.getresponse()
            content, seconds = receipt.read().decode(), time.monotonic() - began
            found.answers[str(receipt.status)] += 1
            if receipt.status != 200 or seconds > FEEDBACK_SECONDS:
                found.failed = f"feedback got {receipt.status} after {seconds:.1f} s: {content[:200]}"


def ties(target: Target) -> Outcome:
    """Find a row on which two classes tie by a bulk request, and send it again and again."""
    found = Outcome()
    rows = as_words(generate(CANDIDATES, seed=77), first_class=1)
    lines = "\n".join(map(",".join, [COVERTYPE.columns, *rows]))
    status, answer = ask(target.port, "POST", BATCH + VERSION, lines.encode(), CSV)
    if status != "200":
        return Outcome(failed=f"the bulk request got {status}")
    answers = csv.DictReader(io.StringIO(answer.decode()))
    row = next((row for row, answered in zip(rows, answers, strict=True) if _ties(answered)), None)
    if row is None:
        return Outcome(failed="no row ties: the attack measures nothing")
    body = json.dumps(dict(zip(COVERTYPE.feature_names, row, strict=False))).encode()
    until = time.monotonic() + SECONDS
    together([partial(_again, found, target, "POST", "/predict" + VERSION, body, until)] * TIES)
    return found


def _ties(row: dict[str, str]) -> bool:
    probabilities = sorted(float(value) for name, value in row.items() if name.startswith("probability"))
    return probabilities[-1] - probabilities[-2] < MARGIN


def _again(found: Outcome, target: Target, method: str, path: str, body: bytes | None, until: float) -> None:
    """Make a call over one connection until then."""
    with closing(HTTPConnection(HOST, target.port, timeout=60)) as connection:
        while time.monotonic() < until:
            connection.request(method, path, body, JSON if body else {})
            response = connection.getresponse()
            response.read()
            found.answers[str(response.status)] += 1


def _counted(found: Outcome, target: Target, path: str, body: bytes = b"") -> None:
    status, _ = ask(target.port, "POST", path, body, JSON)
    found.answers[status] += 1


def _timed(found: Outcome, target: Target, path: str, most: float) -> None:
    began = time.monotonic()
    method = "POST" if path.startswith(("/explain", "/predict")) else "GET"
    status, _ = ask(target.port, method, path, ROW if method == "POST" else None, JSON, source="127.0.0.3")
    found.answers[status] += 1
    if (seconds := time.monotonic() - began) > most:
        found.failed = f"{path} took {seconds:.1f} s"


ATTACKS = (
    Attack(f"{CHECKS} checks of a hanging MLflow", "delay other calls", checks_of_a_hanging_mlflow),
    Attack("forged X-Forwarded-For", "pass the rate limit", forged_addresses),
    Attack("60 explanations at once", "delay predictions", explanations),
    Attack(f"{EACH * len(READS)} connections with reads of all kinds", "delay predictions", reads_of_all_kinds),
    Attack("2 connections with comparisons of versions", "delay predictions", comparisons),
    Attack("bulk requests that fill the prediction log", "hold up feedback", rows_for_the_log),
    Attack(f"{TIES} connections with a tie", "delay predictions", ties),
)
