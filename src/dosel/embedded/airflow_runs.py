"""What Airflow says of its runs, over its own API, and where a failed task's log lies."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from dosel.settings import Settings

UNWELL = ("failed", "up_for_retry")


@dataclass(frozen=True)
class Trouble:
    """A task that failed; `final` if Airflow will not try it again."""

    dag: str
    task: str
    attempt: int
    attempts: int
    final: bool
    reason: str
    log: Path


class AirflowRuns:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{settings.airflow_port}", timeout=10)
        self._token = ""

    def unhealthy(self) -> list[str]:
        """Parts of Airflow that are not well: of metadatabase, scheduler and dag_processor."""
        parts = self._client.get("/api/v2/monitor/health").raise_for_status().json()
        needed = ("metadatabase", "scheduler", "dag_processor")
        return [name for name in needed if (parts.get(name) or {}).get("status") != "healthy"]

    def start_run(self, dag: str) -> None:
        """Starts a run now, unless one is under way or the DAG is not known yet (then it starts by itself)."""
        under_way = self._get(f"/api/v2/dags/{dag}/dagRuns", {"state": ["queued", "running"], "limit": 1})
        if under_way.get("total_entries", 1) == 0:
            self._call("POST", f"/api/v2/dags/{dag}/dagRuns", json={"logical_date": None})

    def troubles(self, dag: str, since: datetime) -> list[Trouble]:
        """Tasks of a DAG that failed in runs begun since then, oldest first."""
        answer = self._get(
            f"/api/v2/dags/{dag}/dagRuns/~/taskInstances",
            {"state": list(UNWELL), "start_date_gte": since.isoformat(), "order_by": "start_date"},
        )
        return [self._trouble(task) for task in answer.get("task_instances", [])]

    def _trouble(self, task: dict[str, Any]) -> Trouble:
        place = f"dag_id={task['dag_id']}/run_id={task['dag_run_id']}/task_id={task['task_id']}"
        log = self._settings.home / "airflow" / "logs" / place / f"attempt={task['try_number']}.log"
        return Trouble(
            dag=task["dag_id"],
            task=task["task_id"],
            attempt=task["try_number"],
            attempts=task["max_tries"] + 1,
            final=task["state"] == "failed",
            reason=_last_error(log),
            log=log,
        )

    def _get(self, path: str, params: dict[str, Any]) -> dict[str, Any]:
        """The answer, empty where there is nothing of that name (yet)."""
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
            # The token has run out; the next call fetches another.
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
    return "the task ended without a word, as if it was killed"
