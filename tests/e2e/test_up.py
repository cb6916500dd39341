"""`make up`: Airflow pulls batches, MLflow records runs, a model enters Production and the API answers."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient, pyfunc, set_tracking_uri, sklearn
from playwright.sync_api import Browser, expect

from dosel.db.engine import connect
from dosel.model import tags
from dosel.registry.ledger import PromotionLedger
from dosel.usecases import ALL, DEFAULT, Family, Range, UseCase
from dosel.usecases.covertype import COVERTYPE
from dosel.usecases.penguins import PENGUINS
from dosel.warehouse.batches import BatchStore
from tests.e2e import browsing
from tests.e2e.conftest import PORTS, ROOT, TRIALS, Installation

pytestmark = pytest.mark.e2e

Running = tuple[Installation, str]

each_use_case = pytest.mark.parametrize("use_case", ALL, ids=lambda use_case: use_case.name)


def answering(output: str) -> dict[str, int]:
    """The version of each model that answered, read from the output of `make up`."""
    return {name: int(number) for name, number in re.findall(r"by (\w+) version (\d+)", output)}


def candidates(family: Family) -> int:
    if family.search.kind == "optuna":
        return TRIALS
    sizes = [len(values) for values in family.space.values() if not isinstance(values, Range)]
    return prod(sizes)


def of_ours(home: str) -> list[psutil.Process]:
    """Processes with this installation's folder in their environment or command."""
    found = []
    for process in psutil.process_iter():
        try:
            belongs = home in " ".join(process.cmdline()) or home in process.environ().get("DOSEL_HOME", "")
            if belongs and process.pid != os.getpid() and process.name() not in ("make", "sh"):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_make_up_shows_progress_and_a_prediction_of_each_use_case(running: Running) -> None:
    _, output = running
    assert "4,000 rows, generated" in output
    for number in range(1, 11):
        assert re.search(rf"{COVERTYPE.name} +batch {number:>2}", output)
    for use_case in ALL:
        for family in use_case.families:
            of = candidates(family)
            for number in range(1, of + 1):
                assert f"{use_case.name}   candidate {family.name} {number}/{of} " in output
        assert re.search(rf"Production   {use_case.model_name} version \d+: {use_case.gate.metric} [01]\.\d+", output)
    assert "user admin, password admin" in output
    assert set(answering(output)) == {use_case.model_name for use_case in ALL}


@each_use_case
def test_the_api_answers_the_example_of_the_docs(running: Running, use_case: UseCase) -> None:
    platform, output = running
    document = httpx.get(platform.url("API_PORT") + "/openapi.json").json()
    path = f"/predict/{use_case.name}"
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    schema = document["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
    for address in (path, "/predict") if use_case is DEFAULT else (path,):
        answer = httpx.post(platform.url("API_PORT") + address, json=schema["examples"][0]).raise_for_status().json()
        assert answer["label"] == use_case.target.labels[answer["prediction"]]
        assert answer["model"]["version"] == answering(output)[use_case.model_name]


@each_use_case
def test_the_model_parameter_selects_the_version_of_a_family(running: Running, use_case: UseCase) -> None:
    platform, _ = running
    versions = set()
    for family in use_case.families:
        path = f"/predict/{use_case.name}?model={family.name}"
        answer = httpx.post(platform.url("API_PORT") + path, json=use_case.example, timeout=60)
        versions.add(answer.raise_for_status().json()["model"]["version"])
    assert versions == set(range(1, len(use_case.families) + 1))


@each_use_case
@pytest.mark.parametrize("address", ["models:/{}/Production", "models:/{}@production"])
def test_plain_mlflow_loads_the_version_in_production(running: Running, use_case: UseCase, address: str) -> None:
    platform, _ = running
    set_tracking_uri(platform.url("MLFLOW_PORT"))
    row = pd.DataFrame([use_case.example])
    uri = address.format(use_case.model_name)
    assert sklearn.load_model(uri).predict(row)[0] in use_case.target.labels
    assert pyfunc.load_model(uri).predict(row)[0] in use_case.target.labels


@each_use_case
def test_mlflow_has_the_searches_with_all_their_candidates(running: Running, use_case: UseCase) -> None:
    platform, _ = running
    client = MlflowClient(platform.url("MLFLOW_PORT"))
    experiment = client.get_experiment_by_name(use_case.experiment)

    def below(run_id: str) -> list[Any]:
        return list(client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{run_id}'"))

    best = client.get_run(client.get_model_version_by_alias(use_case.model_name, "production").run_id)
    assert best.data.metrics[f"holdout_{use_case.gate.metric}"] > use_case.gate.floor
    searched = {run.data.tags[tags.FAMILY]: run for run in below(best.data.tags["mlflow.parentRunId"])}
    assert set(searched) == {family.name for family in use_case.families}
    for family in use_case.families:
        tried = [run for run in below(searched[family.name].info.run_id) if tags.CANDIDATE in run.data.tags]
        assert len(tried) == candidates(family)
        assert min(run.data.metrics["rank_test_score"] for run in tried) == 1


@pytest.mark.soak
def test_mlflow_opens_on_the_trainings_of_each_use_case(running: Running, browser: Browser) -> None:
    addresses = re.findall(r"its trainings: (\S+)", running[1])
    assert len(addresses) == len(ALL)
    for address in addresses:
        with browsing.opened(browser, address) as page:
            expect(page.get_by_text(re.compile(r"^[01]\.\d+ \w+ · ")).first).to_be_visible()
            expect(page.get_by_role("columnheader", name="holdout_accuracy").first).to_be_visible()
            expect(page.get_by_role("button", name="Model training")).to_be_visible()
            browsing.keep(page, "mlflow")


@pytest.fixture
def airflow(running: Running) -> Iterator[httpx.Client]:
    login = {"username": "admin", "password": "admin"}
    with httpx.Client(base_url=running[0].url("AIRFLOW_PORT")) as client:
        token = client.post("/auth/token", json=login).raise_for_status().json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


@each_use_case
def test_airflow_ran_both_dags_and_skipped_nothing(airflow: httpx.Client, use_case: UseCase) -> None:
    def states(dag: str) -> list[str]:
        runs = airflow.get(f"/api/v2/dags/{dag}/dagRuns").raise_for_status().json()["dag_runs"]
        return [run["state"] for run in runs]

    assert states(f"{use_case.name}_ingest")[0] == "success"
    # The API may have loaded the version before the run's last task, so that the run may still be ending.
    assert set(states(f"{use_case.name}_train")) == {"success"} or states(f"{use_case.name}_train") == ["running"]
    skipped = airflow.get("/api/v2/dags/~/dagRuns/~/taskInstances", params={"state": "skipped"}).raise_for_status()
    assert skipped.json()["total_entries"] == 0


def test_a_run_that_finds_nothing_new_skips_nothing_and_starts_no_training(
    running: Running, airflow: httpx.Client
) -> None:
    dag, train = f"{PENGUINS.name}_ingest", f"{PENGUINS.name}_train"

    def trainings() -> int:
        return int(airflow.get(f"/api/v2/dags/{train}/dagRuns").raise_for_status().json()["total_entries"])

    before = trainings()
    run = airflow.post(f"/api/v2/dags/{dag}/dagRuns", json={"logical_date": None}).raise_for_status().json()
    address = f"/api/v2/dags/{dag}/dagRuns/{run['dag_run_id']}"
    browsing.wait_until(lambda: airflow.get(address).json()["state"] in ("success", "failed"))
    tasks = airflow.get(f"{address}/taskInstances").raise_for_status().json()["task_instances"]
    assert {task["task_id"]: task["state"] for task in tasks} == dict.fromkeys(("pull", "score", "announce"), "success")
    assert trainings() == before
    folder = running[0].home / "airflow" / "logs" / f"dag_id={dag}" / f"run_id={run['dag_run_id']}"
    said = " ".join(line["event"] for task in tasks for line in log_of(folder, task["task_id"]))
    for words in ("new batches: 0", "labelled live rows", "no training is due"):
        assert words in said


def test_airflows_page_shows_no_failed_part(airflow: httpx.Client) -> None:
    parts = airflow.get("/api/v2/monitor/health").raise_for_status().json()
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(parts, "healthy")


def log_of(run: Path, task: str) -> list[dict[str, Any]]:
    """The lines of a task's last attempt."""
    [*_, last] = sorted((run / f"task_id={task}").glob("attempt=*.log"))
    return [json.loads(line) for line in last.read_text().splitlines()]


SAYS = {
    "pull": r"new batches: N; N rows received, N clean, N refused",
    "score": r"no version of \w+ is in Production yet",
    "process": r"N train rows",
    "announce": "a training is due: no judged version was trained on these rows",
    "train": r"accuracy [01]\.\d+ on N held-out rows",
    "register": r"version \d+ \(\w+\) is the challenger: cross-validation \w+ [01]\.\d+",
    "challenge": r"rule floor holds: .*\d",
    "warm_up": r"answers \w+ with version \d+",
}
"""What each task of a first run says. N is a number; an ellipsis in the logs of a closed use case."""

OPEN, CLOSED = r"[\d,]+", "…"


def test_each_task_says_what_it_did_in_at_most_60_lines(running: Running) -> None:
    first: dict[tuple[str, str], Path] = {}
    logs = (running[0].home / "airflow" / "logs").glob("dag_id=*/run_id=*")
    for run in sorted(logs, key=lambda folder: folder.stat().st_ctime):
        for folder in run.glob("task_id=*"):
            first.setdefault((run.parent.name, folder.name.removeprefix("task_id=")), run)
    assert {task for _, task in first} >= SAYS.keys()
    closed = tuple(f"dag_id={use_case.name}_" for use_case in ALL if not use_case.expose_training_rows)
    assert closed
    for (dag, task), run in first.items():
        lines, number = log_of(run, task), CLOSED if dag.startswith(closed) else OPEN
        assert len(lines) <= 60, (dag, task, len(lines))
        noise = [line for line in lines if line["logger"] in ("py.warnings", "task.stderr") or "Deprecat" in str(line)]
        assert noise == [], (dag, task)
        assert re.search(SAYS.get(task, "").replace("N", number), "\n".join(line["event"] for line in lines)), (
            dag,
            task,
        )


@each_use_case
def test_the_warehouse_accounts_for_every_row(running: Running, use_case: UseCase) -> None:
    platform, output = running
    engine = connect(f"sqlite:///{platform.home / 'warehouse.db'}")
    store = BatchStore(engine, use_case)
    records = store.records()
    assert all(r.rows_received == r.rows_clean + r.rows_refused + r.rows_duplicate for r in records)
    assert len(store.clean()) == sum(r.rows_clean for r in records) > 0
    if use_case is DEFAULT:
        assert [record.number for record in records] == list(range(1, 11))
        assert sum(r.rows_received for r in records) == 4000
    name = use_case.model_name
    assert [entry.to_version for entry in PromotionLedger(engine).history(name)] == [answering(output)[name]]


def test_each_cell_of_the_notebook_runs(running: Running) -> None:
    here, _ = running
    cells = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    asked = "\nprint(len(parts), len(answers), refused[0]['field'], batches['rows_clean'])"
    ran = subprocess.run(
        [sys.executable, "-c", code + asked],
        env=here.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    features, rows, field, clean = ran.stdout.split()
    assert (int(features), int(rows), field) == (len(PENGUINS.features), 5, PENGUINS.numbers[0].name)
    assert int(clean) > 0


def test_a_second_start_keeps_the_running_services(running: Running) -> None:
    platform, output = running
    again = platform.make("up", "DETACH=1")
    assert again.returncode == 0
    assert "everything is already running" in again.stdout
    assert answering(again.stdout) == answering(output)
    assert platform.make("status").returncode == 0


@pytest.mark.soak
def test_a_start_with_other_settings_is_refused_while_the_platform_runs(running: Running) -> None:
    platform, _ = running
    refused = platform.make("up", "DETACH=1", API_PORT="1234", BATCH_FRACTION="0.5")
    assert refused.returncode != 0
    assert "API_PORT was" in refused.stderr
    assert "BATCH_FRACTION was 1, is 0.5" in refused.stderr
    assert "make down" in refused.stderr
    status = platform.make("status", API_PORT="1234")
    assert status.returncode == 0
    assert f"http://localhost:{platform.environment['API_PORT']}" in status.stdout


def test_services_listen_on_127_0_0_1_only(running: Running) -> None:
    platform, _ = running
    addresses = {
        connection.laddr.ip
        for process in of_ours(str(platform.home))
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


def test_make_up_writes_nothing_but_the_signing_key_into_the_users_home(running: Running) -> None:
    platform, _ = running
    assert [str(p.relative_to(platform.user_home)) for p in platform.user_home.rglob("*")] == []


@pytest.mark.soak
def test_down_leaves_no_process_and_no_port_and_up_starts_again(running: Running) -> None:
    platform, output = running
    assert platform.make("down").returncode == 0
    assert_nothing_is_left(platform)
    again = platform.make("up", "DETACH=1")
    assert again.returncode == 0, again.stdout + again.stderr
    assert answering(again.stdout) == answering(output)
    assert not re.search(rf"{COVERTYPE.name} +batch", again.stdout)


def assert_nothing_is_left(platform: Installation) -> None:
    """Check that no process of the installation runs and that its ports are free."""
    assert of_ours(str(platform.home)) == []
    for name in PORTS:
        with socket.socket() as probe:
            # With SO_REUSEADDR, as servers use it, closed connections do not occupy a port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", int(platform.environment[name])))
