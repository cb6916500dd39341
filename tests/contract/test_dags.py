"""The DAGs as Airflow parses them: tasks, settings and imports."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dosel.usecases import ALL

ROOT = Path(__file__).resolve().parents[2]

READ_DAGS = """
import json, sys
from airflow.dag_processing.dagbag import DagBag

bag = DagBag(sys.argv[1])

def described(dag):
    return {
        "paused_at_creation": dag.is_paused_upon_creation,
        "max_active_runs": dag.max_active_runs,
        "catchup": dag.catchup,
        "schedule": type(dag.timetable).__name__,
        "every": str(getattr(dag.timetable, "delta", None)),
        "starts_on": sorted(asset.name for asset in dag.timetable.asset_condition.objects)
            if getattr(dag.timetable, "asset_condition", None) else [],
        "tasks": {
            task.task_id: {
                "upstream": sorted(task.upstream_task_ids),
                "retries": task.retries,
                "backoff": bool(task.retry_exponential_backoff),
                "limited": task.execution_timeout is not None,
                "pool": task.pool,
                "outlets": [asset.name for asset in task.outlets],
                "trigger_rule": str(task.trigger_rule.value),
                "on_failure": [call.__name__ for call in task.on_failure_callback],
            }
            for task in dag.tasks
        },
    }

heavy = [name for name in ("mlflow", "sklearn", "pandas", "matplotlib", "fastapi.routing")
         if name in sys.modules]
print(json.dumps({
    "errors": bag.import_errors, "heavy": heavy, "dags": {name: described(dag) for name, dag in bag.dags.items()},
}))
"""


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The DAGs as a new process parses them, so that imports of earlier tests do not count."""
    home = tmp_path_factory.mktemp("airflow")
    environment = os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "DOSEL_INGEST_EVERY": "300",
        "DOSEL_NOTIFY_WEBHOOK": "http://127.0.0.1:1/",
    }
    command = [sys.executable, "-c", READ_DAGS, str(ROOT / "dags")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer


def test_every_use_case_has_two_dags_besides_those_of_the_installation(read: dict[str, Any]) -> None:
    assert read["errors"] == {}
    of_use_cases = {f"{u.name}_{kind}" for u in ALL for kind in ("ingest", "train")}
    assert set(read["dags"]) == of_use_cases | {"dosel_messages", "dosel_retention", "dosel_ledgers"}
    assert set(read["dags"]["dosel_retention"]["tasks"]) == {"prune"}
    assert set(read["dags"]["dosel_ledgers"]["tasks"]) == {"verify"}


def test_messages_are_delivered_every_five_minutes_if_there_is_a_target(read: dict[str, Any]) -> None:
    dag = read["dags"]["dosel_messages"]
    assert (dag["schedule"], dag["every"]) == ("DeltaTriggerTimetable", "0:05:00")
    assert dag["tasks"].keys() == {"deliver"}


def test_every_task_reports_its_final_failure(read: dict[str, Any]) -> None:
    tasks = [task for dag in read["dags"].values() for task in dag["tasks"].values()]
    assert all(task["on_failure"] == ["report_failure"] for task in tasks)


def test_parsing_the_dags_imports_nothing_heavy(read: dict[str, Any]) -> None:
    """Airflow parses the file before each task; heavy imports would make that 6.5 s instead of 0.7 s."""
    assert read["heavy"] == []


@pytest.mark.parametrize("use_case", ALL, ids=lambda u: u.name)
def test_the_ingest_dag_pulls_scores_and_announces_in_order(read: dict[str, Any], use_case: Any) -> None:
    dag = read["dags"][f"{use_case.name}_ingest"]
    assert dag["schedule"] == "DeltaTriggerTimetable"
    between = {"score": ["pull"]} | ({"process": ["score"]} if use_case.processed else {})
    assert {name: task["upstream"] for name, task in dag["tasks"].items()} == {
        "pull": [],
        **between,
        "announce": list(between)[-1:],
    }
    assert dag["tasks"]["announce"]["outlets"] == [f"{use_case.name}_clean"]
    # A pull without new batches is skipped; rows that no training used yet are announced all the same.
    assert {dag["tasks"][name]["trigger_rule"] for name in (*between, "announce")} == {"none_failed"}


@pytest.mark.parametrize("use_case", ALL, ids=lambda u: u.name)
def test_the_training_dag_starts_on_clean_rows_and_ends_at_the_api(read: dict[str, Any], use_case: Any) -> None:
    dag = read["dags"][f"{use_case.name}_train"]
    assert dag["starts_on"] == [f"{use_case.name}_clean"]
    assert {name: task["upstream"] for name, task in dag["tasks"].items()} == {
        "train": [],
        "register": ["train"],
        "challenge": ["register"],
        "warm_up": ["challenge"],
    }
    assert [name for name, task in dag["tasks"].items() if task["pool"] == "training"] == ["train"]


def test_dags_are_active_run_one_at_a_time_and_retry(read: dict[str, Any]) -> None:
    for dag in read["dags"].values():
        assert (dag["paused_at_creation"], dag["max_active_runs"], dag["catchup"]) == (False, 1, False)
        for task in dag["tasks"].values():
            assert (task["retries"], task["backoff"], task["limited"]) == (3, True, True)
