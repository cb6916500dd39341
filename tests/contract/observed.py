"""An installation with data for every metric: batches, labelled rows and pending messages."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
from fastapi.testclient import TestClient

from dosel.db.engine import connect, transaction
from dosel.monitor.truths import Truths, TruthStore, insert_truths
from dosel.quality import check
from dosel.registry.verdicts import Verdict
from dosel.sources.base import Batch
from dosel.usecases import named
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore
from tests.contract.conftest import Installation
from tests.contract.test_api import EXAMPLE

Received = Callable[..., list[list[str]]]

BAD = ["many"] * 13
PROMISED = {str(code): (90, 100) for code in COVERTYPE.target.labels}
"""The gate's counts: of each class, 90 of 100 held-out rows were answered correctly."""


def observed(here: Installation, received: Received) -> Installation:
    """Put models into Production, then store a batch and labelled rows.

    Covertype has a batch of 20 rows, one of them refused. Employees, a closed use case, has 300
    labelled rows, all answered incorrectly.
    """
    version = here.promote(here.good[0])
    here.registry.ledger.add_verdict(COVERTYPE.model_name, version, here.good[0], gate_report(PROMISED))
    engine = connect(here.settings.warehouse_url)
    rows = [*received(19), BAD]
    checked = check(COVERTYPE, rows, "uci")
    stored = BatchStore(engine, COVERTYPE).store(
        Batch("http://data.test/data", "group 6", "e1", 1, rows), checked.accepted, checked.refused
    )
    assert stored is not None
    employees = named("employees")
    run = here.others[employees.name]
    version = here.promote(run, employees)
    first, second, *_ = employees.target.labels
    counts = {str(code): (90, 100) for code in employees.target.labels}
    here.registry.ledger.add_verdict(employees.model_name, version, run, gate_report(counts))
    [entry] = here.registry.ledger.history(employees.model_name)
    TruthStore(engine)
    with transaction(engine) as connection:
        insert_truths(
            connection,
            Truths(
                employees.name,
                employees.model_name,
                entry.sequence,
                version,
                "batch",
                "1",
                datetime.now(UTC),
                np.full(300, first, np.int64),
                np.full(300, second, np.int64),
            ),
        )
    engine.dispose()
    return here


def gate_report(recalled: dict[str, tuple[int, int]]) -> Verdict:
    return Verdict(True, "it is better", {"recalled": recalled})


def give_truth(client: TestClient | httpx.Client, rows: int, right: int) -> None:
    """Request predictions, and send feedback by which the first `right` ones are correct and the others wrong."""
    answer = client.post("/predict/covertype/batch", json=[EXAMPLE] * rows).raise_for_status()
    code = answer.json()["predictions"][0]["prediction"]
    wrong = next(other for other in COVERTYPE.target.labels if other != code)
    name = answer.headers["x-dosel-request-id"]
    truth = [{"request_id": name, "row": row, "truth": code if row <= right else wrong} for row in range(1, rows + 1)]
    receipt: dict[str, Any] = client.post("/feedback/covertype", json=truth).raise_for_status().json()
    assert receipt["accepted"] == rows
