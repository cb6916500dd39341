"""The DAGs as Airflow parses them: tasks, settings and imports."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dosel.model.description import gate_rules
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
        "doc": dag.doc_md,
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
                "doc": task.doc_md,
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

READ_HEALTH = """
import json
from airflow import plugins_manager
from airflow.api.common import airflow_health
from airflow.jobs.triggerer_job_runner import TriggererJobRunner
from starlette.applications import Starlette
from starlette.testclient import TestClient

[middleware] = plugins_manager.get_fastapi_plugins()[1]
application = Starlette()
application.add_middleware(middleware["middleware"])
client, shown = TestClient(application), {}
for status in (None, "healthy", "unhealthy"):
    for needed in (False, True):
        airflow_health.get_airflow_health = lambda: {"triggerer": {"status": status}, "scheduler": {"status": "as is"}}
        TriggererJobRunner.is_needed = lambda: needed
        answer = client.get("/api/v2/monitor/health").json()
        assert answer["scheduler"] == {"status": "as is"}
        shown[f"{status}, {'needed' if needed else 'not needed'}"] = answer["triggerer"]["status"]
assert client.get("/api/v2/monitor").status_code == 404
print(json.dumps(shown))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("airflow")
    return os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "dags" / "plugins"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "DOSEL_INGEST_EVERY": "300",
        "DOSEL_NOTIFY_WEBHOOK": "http://127.0.0.1:1/",
    }


def printed(script: str, environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    """The JSON that a script prints last in a process of its own, so that imports of earlier tests do not count."""
    command = [sys.executable, "-c", script, *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer


@pytest.fixture(scope="module")
def read(environment: dict[str, str]) -> dict[str, Any]:
    """The DAGs as Airflow parses them."""
    return printed(READ_DAGS, environment, str(ROOT / "dags"))


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


def test_every_task_has_a_documentation_that_markdown_shows_as_text(read: dict[str, Any]) -> None:
    for dag in read["dags"].values():
        for name, task in dag["tasks"].items():
            first, _, rest = task["doc"].partition("\n")
            assert first.endswith("."), name
            assert rest.startswith("\n"), f"{name}: one sentence is no documentation"
            assert not any(line.startswith(" ") for line in rest.splitlines()), f"{name}: it would be shown as code"


@pytest.mark.parametrize("use_case", ALL, ids=lambda u: u.name)
def test_the_dags_of_a_use_case_describe_their_steps_and_the_gate(read: dict[str, Any], use_case: Any) -> None:
    for kind in ("ingest", "train"):
        dag = read["dags"][f"{use_case.name}_{kind}"]
        steps = re.findall(r"^1\. `(\w+)`: (.+)$", dag["doc"], re.MULTILINE)
        assert dict(steps) == {name: task["doc"].partition("\n")[0] for name, task in dag["tasks"].items()}
        for place, (name, _) in enumerate(steps):
            assert set(dag["tasks"][name]["upstream"]) <= {before for before, _ in steps[:place]}
        assert re.search(rf"\(http://localhost:\d+/history\?use_case={use_case.name}\)", dag["doc"])
        assert all((ROOT / file).exists() for file in re.findall(r"`(docs/\w+\.md)`", dag["doc"]))
    rules = re.findall(r"^- (.+)$", read["dags"][f"{use_case.name}_train"]["doc"], re.MULTILINE)
    assert rules == list(gate_rules(use_case))
    assert any(f"at least {use_case.gate.floor:g}, " in rule for rule in rules)


def test_every_dag_has_a_documentation(read: dict[str, Any]) -> None:
    assert all(dag["doc"] for dag in read["dags"].values())


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
    # An alias: the task decides whether it updates the asset that starts the training, instead of being skipped.
    assert dag["tasks"]["announce"]["outlets"] == [f"{use_case.name}_training_due"]
    assert {task["trigger_rule"] for task in dag["tasks"].values()} == {"all_success"}


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


def test_a_triggerer_is_missing_only_if_a_task_waits_for_one(environment: dict[str, str]) -> None:
    assert printed(READ_HEALTH, environment) == {
        "None, not needed": "healthy",
        "None, needed": None,
        "healthy, not needed": "healthy",
        "healthy, needed": "healthy",
        "unhealthy, not needed": "unhealthy",
        "unhealthy, needed": "unhealthy",
    }
