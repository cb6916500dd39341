"""Events about failures outside the registry: the audit, Airflow's tasks, and an API that lost track of Production."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from dosel.db.engine import connect
from dosel.errors import AccountingError, QualityError
from dosel.monitor.delivery import try_to_deliver
from dosel.settings import Settings
from dosel.warehouse.events import Event, EventStore

SAME_PERIOD_SECONDS = 600
"""API processes that lose track of Production in the same period of this length write one event together."""


def audit_mismatch(use_case: str, problem: AccountingError) -> Event:
    """The tables do not hold the rows that the batch ledger records."""
    return Event(
        incident=f"audit mismatch {use_case} {_digest(str(problem))}",
        use_case=use_case,
        kind="audit mismatch",
        what=f"{use_case}: the stored rows are not those of the batch ledger; nothing trains on them",
        evidence=str(problem),
        command=f"dosel batches {use_case}",
    )


def ledger_mismatch(problem: str) -> Event:
    """An entry of the ledgers is not what dosel wrote; it concerns all use cases."""
    return Event(
        incident=f"audit mismatch ledgers {_digest(problem)}",
        use_case="ledgers",
        kind="audit mismatch",
        what="the ledgers are not what dosel wrote: somebody changed the data store",
        evidence=problem,
        command="dosel verify",
    )


def stale(use_case: str, version: int | None, since: datetime, evidence: str) -> Event:
    """The API cannot confirm that it answers with the version in Production.

    Args:
        version: the version that answers meanwhile, or None.
        evidence: a clause: what the API waits for, or since when it has followed Production again.
    """
    meanwhile = f"version {version} keeps answering" if version is not None else "no version answers"
    return Event(
        incident=f"stale {use_case} {int(since.timestamp()) // SAME_PERIOD_SECONDS}",
        use_case=use_case,
        kind="stale",
        what=f"{use_case}: the prediction API cannot follow Production; {meanwhile}",
        evidence=evidence,
        command="make status",
        since=since,
    )


def follows_again(use_case: str, version: int | None, since: datetime, now: datetime) -> Event:
    """The API follows Production again, after an event of `stale`."""
    begun = stale(use_case, version, since, "")
    answers = f"version {version} answers" if version is not None else "no version is in Production"
    return replace(
        begun,
        incident=f"{begun.incident} ended",
        what=f"{use_case}: the prediction API follows Production again; {answers}",
        evidence=f"it had not followed Production since {since:%Y-%m-%d %H:%M:%S} UTC",
        since=now,
    )


def task_failed(dag: str, task: str, run: str, error: BaseException | str | None, now: datetime) -> Event:
    """A task of Airflow failed after all its retries. The same failure of a task is one event a day."""
    reason = str(error or "Airflow gives no reason; the task was probably killed")
    kind = type(error).__name__ if isinstance(error, BaseException) else ""
    # Without figures, which differ from run to run.
    same = _digest(f"{kind} {re.sub(r'[0-9]+', '', reason)}")
    return Event(
        incident=f"task failed {dag} {task} {now:%Y-%m-%d} {same}",
        use_case=dag.rpartition("_")[0],
        kind="task failed",
        what=f"the task {task} of {dag} failed after all its retries",
        evidence=f"{kind}: {reason}" if kind else reason,
        command="make logs SERVICE=airflow-scheduler",
        place=f"airflow/dags/{dag}/runs/{run}",
    )


def report_failed_task(context: Mapping[str, Any]) -> None:
    """Airflow's `on_failure_callback`: write the event of a task that failed for good, and try to deliver it."""
    error, task = context.get("exception"), context["task_instance"]
    if isinstance(error, QualityError | AccountingError):
        # These errors have an event already, written where they were raised.
        return
    settings = Settings.load()
    engine = connect(settings.warehouse_url)
    EventStore(engine).add(task_failed(task.dag_id, task.task_id, task.run_id, error, datetime.now(UTC)))
    try_to_deliver(engine, settings)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
