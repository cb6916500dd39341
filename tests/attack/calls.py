"""Attacks with many ordinary calls."""

import time
from functools import partial
from threading import Thread

import psutil

from tests.attack.bodies import JSON, ROW
from tests.attack.target import LIMITED_RATE, Attack, Outcome, Target, ask, together

CHECKS = 45
SLOW_SECONDS = {"/healthz": 1.0, "/models": 15.0, "/explain/covertype": 10.0, "/predict?model=random_forest": 35.0}
"""Longest response time of each call while MLflow hangs and `CHECKS` requests make the API check it."""

FORGED = 40


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
)
