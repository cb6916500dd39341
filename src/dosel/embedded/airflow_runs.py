"""Asks Airflow's API about its runs, and finds failed tasks' logs."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from dosel.settings import Settings

FAILED_STATES = ("failed", "up_for_retry")


@dataclass(frozen=True)
class TaskFailure:
    """A failed attempt at a task; `final` if Airflow will not retry it."""

    dag: str
    task: str
    attempt: int
    attempts: int
    final: bool
    reason: str
    log: Path


class AirflowRuns:
    """Airflow at the embedded platform's port."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{settings.airflow_port}", timeout=10)
        self._token = ""

    def unhealthy(self) -> list[str]:
        """The parts of Airflow that are not healthy: of metadatabase, scheduler and dag_processor."""
        parts = self._client.get("/api/v2/monitor/health").raise_for_status().json()
        needed = ("metadatabase", "scheduler", "dag_processor")
        return [name for name in needed if (parts.get(name) or {}).get("status") != "healthy"]

    def start_run(self, dag: str) -> None:
        """Start a run now, unless one is active or Airflow does not know the DAG yet (it then starts by itself)."""
        active = self._get(f"/api/v2/dags/{dag}/dagRuns", {"state": ["queued", "running"], "limit": 1})
        if active.get("total_entries", 1) == 0:
            self._call("POST", f"/api/v2/dags/{dag}/dagRuns", json={"logical_date": None})

    def failures(self, dag: str, since: datetime) -> list[TaskFailure]:
        """Failed attempts at a DAG's tasks since then, oldest first."""
        answer = self._get(
            f"/api/v2/dags/{dag}/dagRuns/~/taskInstances",
            {"state": list(FAILED_STATES), "start_date_gte": since.isoformat(), "order_by": "start_date"},
        )
        return [self._failure(task) for task in answer.get("task_instances", [])]

    def _failure(self, task: dict[str, Any]) -> TaskFailure:
        folder = f"dag_id={task['dag_id']}/run_id={task['dag_run_id']}/task_id={task['task_id']}"
        log = self._settings.home / "airflow" / "logs" / folder / f"attempt={task['try_number']}.log"
        return TaskFailure(
            dag=task["dag_id"],
            task=task["task_id"],
            attempt=task["try_number"],
            attempts=task["max_tries"] + 1,
            final=task["state"] == "failed",
            reason=_last_error(log),
            log=log,
        )

    def _get(self, path: str, params: dict[str, Any]) -> dict[str, Any]:
        """The answer; empty for a 404."""
        response = self._call("GET", path, params=params)
        answer: dict[str, Any] = {} if response.status_code == httpx.codes.NOT_FOUND else response.json()
        return answer

    def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        if not self._token:
            s = self._settings
            login = {"username": s.airflow_user, "password": s.airflow_password}
            self._token = self._client.post("/auth/token", json=login).raise_for_status().json()["access_token"]
        response = self._client.request(method, path, headers={"Authorization": f"Bearer {self._token}"}, **request)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            # The token has expired; the next call fetches another.
            self._token = ""
        if response.status_code != httpx.codes.NOT_FOUND:
            response.raise_for_status()
        return response


def _last_error(log: Path) -> str:
    """The message of the exception that ended a task, from its log of JSON lines."""
    try:
        lines = log.read_text().splitlines()
    except OSError:
        return "no log was written"
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if details := entry.get("error_detail"):
            return f"{details[0]['exc_type']}: {details[0]['exc_value']}"
        if entry.get("level") in {"error", "critical"}:
            return str(entry.get("event", ""))
    return "the task ended without an error message; it was probably killed"
