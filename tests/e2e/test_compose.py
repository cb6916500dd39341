"""`make e2e`: the platform in Compose, from its images to a first prediction without any manual step; then
each service is killed during a run and has to recover by itself, with no row lost or duplicated.

The tests run in the order of the file on one platform. They need root rights where Docker runs,
since they kill processes of its containers.
"""

import csv
import io
import json
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import httpx
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from mlflow import MlflowClient
from sqlalchemy import Engine, text

from dosel.compose import secrets
from dosel.compose.backup import backup, restore
from dosel.credentials import CREDENTIALS, new_certificate
from dosel.db.engine import connect
from dosel.embedded.preflight import free_ports
from dosel.errors import StartupError
from dosel.registry import mlflow_calls
from dosel.registry.ledger import PromotionLedger
from dosel.registry.training_progress import candidates_since
from dosel.settings import Settings
from dosel.signing import Keys
from dosel.usecases import ALL, LakeRows, UseCase
from dosel.usecases.covertype import COVERTYPE
from dosel.usecases.employees import EMPLOYEES
from dosel.warehouse.batches import BatchStore
from external.data import load
from external.main import build_app
from external.settings import Settings as DataApiSettings
from external.state import State
from tests.e2e.stack import EXTERNAL, PLATFORM, PROJECT, ROOT, SETTINGS, Stack, docker, have_docker, wait

pytestmark = pytest.mark.compose
log = logging.getLogger(__name__)

ROWS, GROUP, BATCHES = 8000, 6, 10
INGEST, TRAIN = f"{COVERTYPE.name}_ingest", f"{COVERTYPE.name}_train"
PROFILE_PORTS = ("DASK_PORT", "DASK_DASHBOARD_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT")
"""Ports of services that the profiles `cluster` and `monitoring` start."""

PORTS = (
    *PROFILE_PORTS,
    *("AIRFLOW_PORT", "MLFLOW_PORT", "API_PORT", "STREAMLIT_PORT", "EXTERNAL_PORT"),
    *("MLFLOW_MYSQL_PORT", "DATA_STORE_PORT", "MINIO_PORT", "MINIO_CONSOLE_PORT"),
)
VOLUMES = (
    "airflow-logs",
    "data-api",
    "minio",
    "mlflow-scratch",
    "mysql",
    "mysql-data-store",
    "postgres",
    "scratch",
    "serving",
    "signing-key",
    "trusted-keys",
    "valkey",
)
OF_PROFILES = ("alertmanager", "prometheus")
FIRST_PREDICTION_SECONDS = 900
HEALTHY_SECONDS = 180
"""Seconds until a killed service is healthy again."""
RUN_SECONDS = 600
"""Seconds until a disturbed run has ended: heartbeat timeout, retries and the work itself."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    if not have_docker():
        pytest.fail("make e2e needs a Docker daemon")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    environment = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True)) | {
        "DOSEL_NETWORK": "dosel-e2e",
        "DOSEL_INGEST_EVERY": "86400",
        "DATA_API_FETCH": "never",
        "DATA_API_ROWS": str(ROWS),
        "MIN_UPDATE_TIME": "0",
        # The local image of this name, whichever it is.
        "PYTHON_IMAGE": str(SETTINGS["PYTHON_IMAGE"]).partition("@")[0],
    }
    stack = Stack(environment)
    try:
        for what, files in (("the data API", EXTERNAL), ("everything else", PLATFORM)):
            began = time.monotonic()
            stack.compose(files, "up", "-d", "--build", timeout=1800)
            log.info("%s is up after %.0f s, images included", what, time.monotonic() - began)
        yield stack
    finally:
        (logs := Path("test-output")).mkdir(exist_ok=True)
        (logs / "compose.log").write_text(stack.compose((*EXTERNAL, *PLATFORM), "logs", "--no-color"))
        stack.compose((*EXTERNAL, *PLATFORM), "down", "-v")
    assert stack.left() == {"containers": [], "volumes": [], "networks": []}


@pytest.fixture(scope="module")
def warehouse(stack: Stack) -> Iterator[Engine]:
    password, port = stack.setting("WAREHOUSE_PASSWORD"), stack.environment["DATA_STORE_PORT"]
    engine = connect(f"mysql://dosel:{password}@127.0.0.1:{port}/datadb")
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def source() -> Iterator[TestClient]:
    """A second data API with the same settings, which serves the same rows as the one in Compose."""
    with tempfile.TemporaryDirectory() as folder:
        settings = DataApiSettings(
            data_api_fetch="never", data_api_rows=ROWS, min_update_time=0, data_api_state_dir=Path(folder)
        )
        with TestClient(build_app(settings, State(Path(folder), 0), load(settings))) as client:
            yield client


@pytest.fixture(scope="module")
def served(source: TestClient) -> list[pd.DataFrame]:
    """All batches served so far, in order; a test that restarts the generation adds its batches."""
    return generation(source)


def generation(source: TestClient) -> list[pd.DataFrame]:
    answers = [source.get("/data", params={"group_number": GROUP}).raise_for_status() for _ in range(BATCHES)]
    return [pd.DataFrame(answer.json()["data"], columns=list(COVERTYPE.columns)) for answer in answers]


def stored(engine: Engine) -> list[pd.DataFrame]:
    """The batches in MySQL's raw table, in order."""
    columns = ", ".join(f"`{name}`" for name in COVERTYPE.columns)
    with engine.connect() as connection:
        rows = pd.read_sql(
            text(f"SELECT batch_id, {columns} FROM {COVERTYPE.name}_raw ORDER BY batch_id, row_no"), connection
        )
    return [group.drop(columns="batch_id").reset_index(drop=True) for _, group in rows.groupby("batch_id")]


def check_account(engine: Engine, served: list[pd.DataFrame]) -> None:
    """Check that MySQL has each served row once, and that the ledger's counts equal those of the tables."""
    batches = stored(engine)
    assert len(batches) == len(served)
    for is_there, was_served in zip(batches, served, strict=True):
        pd.testing.assert_frame_equal(is_there, was_served, check_dtype=False)
    records = BatchStore(engine, COVERTYPE).records()
    with engine.connect() as connection:
        clean, keys = connection.execute(
            text(f"SELECT COUNT(*), COUNT(DISTINCT row_key) FROM {COVERTYPE.name}_clean")
        ).one()
    assert clean == keys == sum(record.rows_clean for record in records)
    assert sum(record.rows_received for record in records) == sum(map(len, served))


def ledger_of(stack: Stack, engine: Engine) -> PromotionLedger:
    """The ledger as the API reads it: entries count if a key signed them that the installation trusts."""
    with tempfile.NamedTemporaryFile(mode="w", suffix=".pem", delete=False) as file:
        file.write(docker("exec", stack.container("fast_api")["Id"], "cat", "/opt/trusted/keys.pem"))
    return PromotionLedger(engine, Keys(Settings(trusted_keys=file.name)))


def one_in_production(stack: Stack, engine: Engine, use_case: UseCase = COVERTYPE) -> int:
    """The version in Production, after a check that ledger, aliases, stages and API agree on it."""
    client = MlflowClient(stack.url("MLFLOW_PORT"))
    name = use_case.model_name
    staged = [
        int(v.version) for v in client.search_model_versions(f"name = '{name}'") if v.current_stage == "Production"
    ]
    last = ledger_of(stack, engine).last(name)
    assert last is not None
    assert staged == [last.to_version]
    assert int(client.get_model_version_by_alias(name, "production").version) == last.to_version
    wait("the API answers with it", lambda: answer(stack, use_case)["model"]["version"] == last.to_version, 60)
    return last.to_version


def ask(stack: Stack, use_case: UseCase = COVERTYPE) -> httpx.Response:
    url = f"{stack.url('API_PORT')}/predict/{use_case.name}"
    return httpx.post(url, json=dict(use_case.example), timeout=10).raise_for_status()


def answer(stack: Stack, use_case: UseCase = COVERTYPE) -> dict[str, Any]:
    found: dict[str, Any] = ask(stack, use_case).json()
    return found


def test_each_use_case_reaches_a_first_prediction_without_manual_steps(
    stack: Stack, warehouse: Engine, served: list[pd.DataFrame]
) -> None:
    began = time.monotonic()
    waiting = list(ALL)

    def all_answer() -> bool:
        for use_case in tuple(waiting):
            dag = f"{use_case.name}_train"
            if failed := [run for run in stack.runs(dag) if run["state"] == "failed"]:
                pytest.fail(f"{dag} failed: {stack.tasks(dag, failed[0]['dag_run_id'])}")
            try:
                answer(stack, use_case)
            except httpx.HTTPStatusError:
                continue
            waiting.remove(use_case)
            log.info("%s: a first prediction %.0f s after everything is up", use_case.name, time.monotonic() - began)
        return not waiting

    wait("a first prediction of each", all_answer, FIRST_PREDICTION_SECONDS)
    for use_case in ALL:
        for dag in (f"{use_case.name}_ingest", f"{use_case.name}_train"):
            tasks = stack.tasks(dag, stack.newest_run(dag)["dag_run_id"])
            log.info("%s, seconds: %s", dag, {name: round(task["duration"] or 0) for name, task in tasks.items()})
        assert one_in_production(stack, warehouse, use_case) >= 1
    check_account(warehouse, served)
    with warehouse.connect() as connection:
        _, loads = connection.execute(text("SHOW GLOBAL STATUS LIKE 'Com_load'")).one()
    assert int(loads) >= BATCHES, "batches are inserted row by row, not loaded"


def test_every_service_is_healthy_and_answers(stack: Stack) -> None:
    wait("all are healthy", lambda: not stack.unhealthy(), HEALTHY_SECONDS)
    for port, path in {
        "AIRFLOW_PORT": "/api/v2/monitor/health",
        "MLFLOW_PORT": "/health",
        "STREAMLIT_PORT": "/",
        "MINIO_CONSOLE_PORT": "/",
        "EXTERNAL_PORT": "/health",
        "API_PORT": "/readyz",
    }.items():
        httpx.get(stack.url(port) + path, timeout=20, follow_redirects=True).raise_for_status()


def test_running_containers_are_confined_and_show_no_secret(stack: Stack) -> None:
    public = [credential.default for credential in CREDENTIALS if len(credential.default) > len("admin")]
    running = [container for container in stack.containers() if container["State"]["Running"]]
    assert len(running) >= len(PORTS)
    for container in running:
        name, host = container["Config"]["Labels"]["com.docker.compose.service"], container["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"]), name
        assert 0 < host["PidsLimit"] <= 2000, name
        assert host["Memory"] > 0, name
        assert host["Tmpfs"], name
        assert not host["Privileged"], name
        assert {mount["Type"] for mount in container["Mounts"] if mount["RW"]} <= {"volume", "tmpfs"}, name
        heading, *processes = docker("top", container["Id"], "-eo", "pid,uid,args").splitlines()
        assert heading.split() == ["PID", "UID", "COMMAND"]
        assert [line for line in processes if line.split()[1] == "0"] == [], name
        shown = json.dumps(container) + "".join(processes)
        assert [secret for secret in public if secret in shown] == [], name


def reaches(stack: Stack, service: str, host: str, port: int) -> bool:
    """Whether a container of `service` can open a connection."""
    code = f"import socket; socket.create_connection(('{host}', {port}), timeout=3)"
    files = EXTERNAL if service == "data-api" else PLATFORM
    return stack.try_compose(files, "exec", "-T", service, "python", "-c", code).returncode == 0


@pytest.mark.parametrize(
    ("service", "allowed", "closed"),
    [
        (
            "streamlit",
            [("api", 8989)],
            [("mysql-data-store", 3306), ("mysql", 3306), ("mlflow", 5000), ("minio", 9000)],
        ),
        ("data-api", [("data-api", 8090)], [("mlflow", 5000), ("mysql-data-store", 3306), ("api", 8989)]),
    ],
)
def test_the_page_and_the_data_api_reach_no_store(
    stack: Stack, service: str, allowed: list[tuple[str, int]], closed: list[tuple[str, int]]
) -> None:
    assert [address for address in allowed if not reaches(stack, service, *address)] == []
    # By name and by address, since a name may be unknown where the address answers.
    for host, port in closed:
        container = stack.container("fast_api" if host == "api" else host)
        places = [host, *(n["IPAddress"] for n in container["NetworkSettings"]["Networks"].values())]
        assert [place for place in places if reaches(stack, service, place, port)] == []


def test_ports_are_published_on_127_0_0_1_only(stack: Stack) -> None:
    published = [
        binding["HostIp"]
        for container in stack.containers()
        for bindings in (container["HostConfig"]["PortBindings"] or {}).values()
        for binding in bindings
    ]
    assert len(published) == len(PORTS) - len(PROFILE_PORTS)
    assert set(published) == {"127.0.0.1"}


def test_predictions_are_stored_in_the_prediction_log(stack: Stack, warehouse: Engine) -> None:
    asked = ask(stack).headers["x-dosel-request-id"]

    def kept() -> Any:
        with warehouse.connect() as connection:
            return connection.execute(
                text("SELECT answered, version FROM answers WHERE request_id = :id"), {"id": asked}
            ).one_or_none()

    given = answer(stack)
    found = tuple(wait("the answer is in the log", kept, 30))
    assert found == (given["prediction"], given["model"]["version"])


def test_the_api_and_the_command_show_the_same_history(stack: Stack, warehouse: Engine) -> None:
    name = COVERTYPE.model_name
    moves = [(entry.to_version, entry.actor) for entry in ledger_of(stack, warehouse).history(name)]
    history = httpx.get(f"{stack.url('API_PORT')}/models/{name}/history", timeout=20).raise_for_status().json()
    assert [(entry["to_version"], entry["actor"]) for entry in history["entries"]] == moves
    printed = stack.compose(
        PLATFORM, "run", "--rm", "-T", "airflow-cli", "python", "-m", "dosel", "history", name, "--csv"
    )
    rows = csv.DictReader(io.StringIO(printed))
    assert [(int(row["to_version"]), row["actor"]) for row in rows] == moves


def test_mlflow_refuses_unknown_host_names(stack: Stack) -> None:
    url = f"{stack.url('MLFLOW_PORT')}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert httpx.get(url).status_code == 200
    assert httpx.get(url, headers={"Host": "evil.example"}).status_code == 403


def bucket(stack: Stack, user: str, secret: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=stack.url("MINIO_PORT"),
        aws_access_key_id=user,
        aws_secret_access_key=stack.setting(secret),
        region_name="us-east-1",
    )


def test_model_files_are_in_a_bucket_that_only_mlflow_can_read(stack: Stack) -> None:
    files = bucket(stack, "mlflow", "MLFLOW_S3_SECRET_KEY").list_objects_v2(Bucket="mlflows3")["Contents"]
    assert any(file["Key"].endswith("/MLmodel") for file in files)
    workers = bucket(stack, "pipeline", "PIPELINE_S3_SECRET_KEY")
    assert isinstance(EMPLOYEES.rows, LakeRows)
    assert workers.head_object(Bucket="data", Key=EMPLOYEES.rows.key)["ContentLength"] > 0
    processed = [file["Key"] for file in workers.list_objects_v2(Bucket="processed")["Contents"]]
    assert processed
    assert all(EMPLOYEES.name in key and key.endswith(".parquet") for key in processed)
    with pytest.raises(workers.exceptions.ClientError, match="AccessDenied"):
        workers.list_objects_v2(Bucket="mlflows3")


def test_the_training_used_all_cores(stack: Stack, warehouse: Engine) -> None:
    client = MlflowClient(stack.url("MLFLOW_PORT"))
    version = client.get_model_version_by_alias(COVERTYPE.model_name, "production")
    assert client.get_run(version.run_id).data.tags["dosel.cores"] == str(os.cpu_count())


def test_airflow_has_its_declared_connections(stack: Stack) -> None:
    shown = stack.compose(
        *(PLATFORM, "exec", "-T", "airflow-worker", "with-secrets"),
        *("airflow", "connections", "get", "mysql_default", "-o", "json"),
    )
    for part in ("mysql-data-store", "datadb", "dosel"):
        assert part in shown


def begin_training(stack: Stack, source: TestClient, served: list[pd.DataFrame], task: str) -> str:
    """Serve new batches and start an ingest; gives the training that follows, as soon as its `task` runs."""
    former = stack.newest_run(TRAIN)["dag_run_id"]
    for api in (source, httpx.Client(base_url=stack.url("EXTERNAL_PORT"))):
        api.get("/restart_data_generation", params={"group_number": GROUP}).raise_for_status()
    served += generation(source)
    stack.airflow("POST", f"dags/{INGEST}/dagRuns", json={"logical_date": None})

    def under_way() -> str | None:
        run = stack.newest_run(TRAIN)["dag_run_id"]
        state = stack.tasks(TRAIN, run)[task]["state"] if run != former else None
        assert state not in ("success", "failed"), f"{task} was over before it could be disturbed"
        return str(run) if state == "running" else None

    return wait(f"{task} runs", under_way, RUN_SECONDS)


def outcome(stack: Stack, run: str) -> str | None:
    """The state of a training that is over; None before."""
    state = str(stack.airflow("GET", f"dags/{TRAIN}/dagRuns/{run}")["state"])
    return state if state in ("success", "failed") else None


@pytest.mark.parametrize(
    ("service", "task"),
    [
        ("airflow-worker", "train"),
        ("mysql-data-store", "challenge"),
        ("minio", "challenge"),
        ("mlflow", "train"),
        ("fast_api", "train"),
    ],
)
def test_a_service_killed_during_a_run_recovers(
    service: str, task: str, stack: Stack, warehouse: Engine, source: TestClient, served: list[pd.DataFrame]
) -> None:
    run = begin_training(stack, source, served, task)
    killed = time.monotonic()
    started = stack.kill(service)
    wait(f"{service} is well again", lambda: stack.restarted(service, started), HEALTHY_SECONDS)
    well = time.monotonic()

    assert wait("the run is over", lambda: outcome(stack, run), RUN_SECONDS) == "success"
    ended = time.monotonic()
    tries = {name: state["try_number"] for name, state in stack.tasks(TRAIN, run).items()}
    log.info(
        "%s was well after %.0f s, the run over after %.0f s; tries %s", service, well - killed, ended - killed, tries
    )
    wait("all are healthy", lambda: not stack.unhealthy(), HEALTHY_SECONDS)
    check_account(warehouse, served)
    assert one_in_production(stack, warehouse) >= 1


def test_a_training_ends_on_a_cluster_of_which_a_worker_is_killed(
    stack: Stack, warehouse: Engine, source: TestClient, served: list[pd.DataFrame]
) -> None:
    cluster = {"DOSEL_CLUSTER": "tls://dask-scheduler:8786", "DOSEL_CLUSTER_CERTIFICATE": new_certificate()}
    profile = (PLATFORM, "--profile", "cluster")
    stack.environment |= cluster
    try:
        stack.compose(*profile, "up", "-d", "--scale", "dask-worker=2", timeout=600)
        wait("all are healthy", lambda: not stack.unhealthy(), HEALTHY_SECONDS)
        client, began = MlflowClient(stack.url("MLFLOW_PORT")), datetime.now(UTC)
        mlflow = mlflow_calls.connect(stack.url("MLFLOW_PORT"))
        run = begin_training(stack, source, served, "train")
        seen = wait("a candidate is scored", lambda: candidates_since(mlflow, COVERTYPE.experiment, began), RUN_SECONDS)
        os.kill(stack.containers("dask-worker")[0]["State"]["Pid"], signal.SIGKILL)
        assert wait("the run is over", lambda: outcome(stack, run), RUN_SECONDS) == "success"
        assert stack.tasks(TRAIN, run)["train"]["try_number"] == 1
        family = client.get_run(seen[0].search)
        assert family.info.status == "FINISHED"
        assert family.data.tags["dosel.cores"] == "2"
        check_account(warehouse, served)
        one_in_production(stack, warehouse)
    finally:
        for name in cluster:
            stack.environment.pop(name)
        stack.compose(*profile, "rm", "--stop", "--force", "dask-worker", "dask-scheduler")
        stack.compose(PLATFORM, "up", "-d", timeout=600)
    wait("all are healthy", lambda: not stack.unhealthy(), HEALTHY_SECONDS)


def test_the_profile_monitoring_watches_the_api(stack: Stack) -> None:
    """Without Grafana, whose queries `tests/contract/test_metrics.py` runs."""
    services, monitoring = ("prometheus", "alertmanager"), ("--profile", "monitoring")
    with httpx.Client(base_url=f"{stack.url('PROMETHEUS_PORT')}/api/v1", timeout=10) as prometheus:

        def found(path: str, **parameters: str) -> Any:
            return prometheus.get(path, params=parameters).raise_for_status().json()["data"]

        def is_up(value: str) -> bool:
            [api] = found("/query", query='up{job="dosel"}')["result"]
            return bool(api["value"][1] == value)

        try:
            stack.compose(PLATFORM, *monitoring, "up", "-d", *services, timeout=600)
            wait("all are healthy", lambda: not stack.unhealthy(), HEALTHY_SECONDS)
            wait("the API is scraped", lambda: is_up("1"), 60)
            in_production = found("/query", query="dosel_model_version")["result"]
            assert {one["metric"]["use_case"] for one in in_production} >= {COVERTYPE.name}
            assert len(found("/alertmanagers")["activeAlertmanagers"]) == 1
            stack.compose(PLATFORM, "stop", "fast_api")
            wait("the API is missed", lambda: is_up("0"), 60)
            wait(
                "an alert", lambda: "DoselApiDown" in {a["labels"]["alertname"] for a in found("/alerts")["alerts"]}, 60
            )
        finally:
            stack.compose(PLATFORM, "start", "fast_api")
            stack.compose(PLATFORM, *monitoring, "rm", "--stop", "--force", *services, "monitoring-owner")
    wait("an answer", lambda: ask(stack), HEALTHY_SECONDS)


def test_a_new_api_container_answers_from_the_cache_marked_stale(stack: Stack, warehouse: Engine) -> None:
    version = one_in_production(stack, warehouse)
    behind = ("mlflow", "minio", "mysql", "mysql-data-store")
    stack.compose(PLATFORM, "stop", *behind)
    stack.compose(PLATFORM, "rm", "--stop", "--force", "fast_api")
    stack.compose(PLATFORM, "up", "-d", "--no-deps", "fast_api")
    alone = wait("an answer", lambda: ask(stack), HEALTHY_SECONDS)
    assert alone.json()["model"]["version"] == version
    assert alone.headers["x-model-stale"] == "true"
    stack.compose(PLATFORM, "start", *behind)
    wait("it is sure again", lambda: "x-model-stale" not in ask(stack).headers, HEALTHY_SECONDS)
    assert one_in_production(stack, warehouse) == version


def test_the_number_of_airflow_workers_can_be_scaled(stack: Stack) -> None:
    for workers in (2, 1):
        stack.compose(PLATFORM, "up", "-d", "--scale", f"airflow-worker={workers}")
        assert len(stack.containers("airflow-worker")) == workers
        wait("all are healthy", lambda: not stack.unhealthy(), HEALTHY_SECONDS)


def test_production_refuses_default_passwords(stack: Stack, tmp_path: Path) -> None:
    settings = {"DOSEL_ENVIRONMENT": "production", "DOSEL_NETWORK": "dosel-e2e-refused"}
    refused = Stack(stack.environment | settings, project="dosel-e2e-refused")
    try:
        assert refused.try_compose(PLATFORM, "up", "-d").returncode != 0
        logs = refused.compose(PLATFORM, "logs", "credentials")
        assert [c.name for c in CREDENTIALS if not c.only_with and c.name not in logs] == []
        assert [c["Name"] for c in refused.containers() if c["State"]["Running"]] == []
        # The refused start left empty volumes, which do not prevent new secrets.
        assert refused.left()["volumes"]
        shutil.copy(ROOT / ".env", tmp_path)
        shutil.copytree(ROOT / secrets.LAPTOP, tmp_path / secrets.LAPTOP)
        assert secrets.write(tmp_path, refused.project).exists()
    finally:
        refused.compose(PLATFORM, "down", "-v")


def test_a_restored_backup_has_the_same_version_in_production(
    stack: Stack, warehouse: Engine, served: list[pd.DataFrame], tmp_path: Path
) -> None:
    version = one_in_production(stack, warehouse)
    everything = (*EXTERNAL, *PLATFORM)
    with pytest.raises(StartupError, match="stop"):
        backup(PROJECT, tmp_path / "backup")
    stack.compose(everything, "stop")
    backup(PROJECT, tmp_path / "backup")
    with pytest.raises(StartupError, match="down -v"):
        restore(PROJECT, tmp_path / "backup")
    stack.compose(everything, "down", "-v")
    # Compose 1.29 also makes the volumes of profiles that were not chosen.
    assert set(restore(PROJECT, tmp_path / "backup")) - set(OF_PROFILES) == set(VOLUMES)
    stack.compose(EXTERNAL, "up", "-d")
    stack.compose(PLATFORM, "up", "-d", timeout=600)
    wait("an answer", lambda: answer(stack)["model"]["version"] == version, FIRST_PREDICTION_SECONDS)
    assert one_in_production(stack, warehouse) == version
    check_account(warehouse, served)
