"""`/metrics`, its use by Prometheus, and the dashboards and alerts of `deploy/monitoring`."""

import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from fastapi import FastAPI
from prometheus_client import generate_latest

from app.http import metrics, store_metrics
from app.main import create_app
from dosel.db.engine import connect
from dosel.errors import WarehouseError
from dosel.monitor import figures, truths
from dosel.monitor.health import health
from dosel.monitor.targets import target_names
from dosel.usecases import named
from dosel.usecases.covertype import COVERTYPE
from tests.contract.conftest import Installation
from tests.contract.observed import Received, give_truth, observed
from tests.contract.test_api import EXAMPLE, wait_until

KEY = {"X-API-Key": "k" * 16}
EMPLOYEES = named("employees")


@pytest.fixture(scope="module")
def here(install: Callable[..., Installation], received: Received) -> Installation:
    keys = f"a client:{KEY['X-API-Key']}"
    return observed(install(predict_keys=keys, notify_webhook="http://127.0.0.1:9/never"), received)


@pytest.fixture(scope="module")
def client(here: Installation) -> Iterator[httpx.Client]:
    with listening(create_app(here.settings)) as url, httpx.Client(base_url=url, headers=KEY, timeout=60) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        give_truth(client, 50, right=40)
        yield client


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The address of the app on a real socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, ws="none", log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(autouse=True)
def no_figures_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn caching off: each scrape reads the data store, with a timeout that is enough on a slow machine."""
    monkeypatch.setattr(store_metrics, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(store_metrics, "SCRAPE_SECONDS", 60.0)


def scrape(client: httpx.Client, **headers: str) -> dict[str, float]:
    """Values by the metric's name with its labels, as `/metrics` writes them."""
    text = client.get("/metrics", headers=headers).raise_for_status().text
    pairs = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def of(name: str, **labels: object) -> str:
    """A metric of covertype, version 1, with further labels."""
    labels = {"use_case": "covertype", "version": 1} | labels
    pairs = (f'{label}="{labels[label]}"' for label in sorted(labels))
    return f"{name}{{{','.join(pairs)}}}"


LIVE = of("dosel_accuracy", bound="live")


def test_metrics_equal_health_and_the_batch_ledger(client: httpx.Client, here: Installation) -> None:
    store = truths.TruthStore(connect(here.settings.warehouse_url))
    found = health(COVERTYPE, here.registry.ledger, store)
    assert found is not None
    accuracy, [target] = found.findings[0], target_names(here.settings)
    expected = {
        "dosel_store_up": 1.0,
        of("dosel_accuracy", bound="promised"): 0.9,
        LIVE: 0.8,
        of("dosel_accuracy", bound="low"): accuracy.low,
        of("dosel_accuracy", bound="high"): accuracy.high,
        of("dosel_labels"): 50.0,
        of("dosel_label_coverage"): found.coverage.share,
        # Of one class, 0 of 10 rows were answered correctly; the gate found 90 of 100.
        of("dosel_health_state", state="harmed"): 1.0,
        of("dosel_health_state", state="unknown"): 0.0,
        'dosel_batches{outcome="stored",use_case="covertype"}': 1.0,
        'dosel_batches{outcome="refused",use_case="covertype"}': 0.0,
        'dosel_rows{outcome="clean",use_case="covertype"}': 19.0,
        'dosel_rows{outcome="refused",use_case="covertype"}': 1.0,
        'dosel_refused_share{use_case="covertype"}': 0.05,
        # Two versions were promoted.
        f'dosel_outbox_events{{target="{target}",urgent="false"}}': 2.0,
        f'dosel_outbox_events{{target="{target}",urgent="true"}}': 0.0,
    }
    shown = scrape(client)
    assert {name: shown.get(name) for name in expected} == expected


def test_metrics_of_a_closed_use_case_need_a_key(client: httpx.Client) -> None:
    wrong = {"X-API-Key": "wrong"}
    assert not EMPLOYEES.expose_training_rows
    assert client.get(f"/use-cases/{EMPLOYEES.name}/health", headers=wrong).status_code == 401
    assert scrape(client)[of("dosel_health_state", use_case=EMPLOYEES.name, state="harmed")] == 1.0
    without = scrape(client, **wrong)
    about = {name.partition("{")[0] for name in without if EMPLOYEES.name in name}
    assert about == {name for name in about if name.startswith("dosel_model_")} != set()
    assert LIVE in without


def test_scrapes_share_a_rendering_outside_the_event_loop(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    scrape(client)
    threads = list[str]()

    def counted(*given: Any) -> bytes:
        threads.append(threading.current_thread().name)
        return generate_latest(*given)

    monkeypatch.setattr(metrics, "generate_latest", counted)
    monkeypatch.setattr(metrics, "PERIOD_SECONDS", 1.0)
    with ThreadPoolExecutor(10) as pool:
        texts = {pool.submit(client.get, "/metrics") for _ in range(10)}
    # The first one may begin before the others have come, which then wait for the next text.
    assert len({answer.result().text for answer in texts}) <= 2
    # Of each text, two parts are rendered.
    assert len(threads) <= 4
    assert threads
    assert all(name.startswith("metrics text") for name in threads)


def test_the_last_values_are_shown_with_their_age_while_the_data_store_is_down(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, server_log: pytest.LogCaptureFixture
) -> None:
    before = scrape(client)

    def away(*_: Any) -> figures.Figures:
        raise WarehouseError("the data store cannot be reached")

    with monkeypatch.context() as patched:
        patched.setattr(figures, "read_figures", away)
        _, after = scrape(client), scrape(client)
    assert [line.message for line in server_log.records if line.levelname in ("WARNING", "ERROR")] == [
        "/metrics has no new figures of the data store: the data store cannot be reached"
    ]
    assert (before["dosel_store_up"], after["dosel_store_up"]) == (1.0, 0.0)
    assert after["dosel_store_figures_age_seconds"] > before["dosel_store_figures_age_seconds"]
    assert after[LIVE] == before[LIVE]
    assert scrape(client)["dosel_store_up"] == 1.0


def test_a_hanging_data_store_does_not_block_a_scrape(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    before, hangs, readings = scrape(client), threading.Event(), list[int]()
    read = figures.read_figures

    def hanging(*arguments: Any) -> figures.Figures:
        readings.append(1)
        hangs.wait()
        return read(*arguments)

    monkeypatch.setattr(store_metrics, "SCRAPE_SECONDS", 0.01)
    monkeypatch.setattr(store_metrics, "HANGING_SECONDS", 0.0)
    monkeypatch.setattr(figures, "read_figures", hanging)
    answers = [scrape(client) for _ in range(3)]
    assert [answer["dosel_store_up"] for answer in answers] == [0.0] * 3
    assert [answer[LIVE] for answer in answers] == [before[LIVE]] * 3
    # One reading at a time.
    assert len(readings) == 1
    hangs.set()
    monkeypatch.setattr(store_metrics, "HANGING_SECONDS", 60.0)
    wait_until(lambda: scrape(client)["dosel_store_up"] == 1.0)


MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
PROMETHEUS = MONITORING / "prometheus"
DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
VARIABLES = {"$__rate_interval": "10s", "$use_case": ".*"}
"""The values that Grafana inserts into a query."""


def program(name: str) -> str:
    """The path of a program of Debian's `prometheus` packages; without it, CI fails and other runs skip."""
    found = shutil.which(name)
    if found is None:
        missing = f"no {name} on PATH: apt-get install prometheus prometheus-alertmanager"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@pytest.mark.parametrize(
    "command",
    [
        ["promtool", "check", "config", f"{PROMETHEUS}/prometheus.yml"],
        ["promtool", "test", "rules", str(Path(__file__).with_name("alerts_test.yml"))],
        ["amtool", "check-config", f"{MONITORING}/alertmanager/alertmanager.yml"],
    ],
    ids=["configuration", "alerts", "alertmanager"],
)
def test_promtool_and_amtool_accept_the_configuration(command: list[str]) -> None:
    done = subprocess.run([program(command[0]), *command[1:]], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def prometheus(client: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Prometheus with the repository's configuration and a short scrape interval."""
    folder = tmp_path_factory.mktemp("prometheus")
    document = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    document["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), "500ms")
    document["rule_files"] = [str(PROMETHEUS / "alerts.yml")]
    del document["alerting"]
    [job] = document["scrape_configs"]
    job["static_configs"] = [{"targets": [client.base_url.netloc.decode()]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(document))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [program("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    log = (folder / "log").open("wb")
    command.append(f"--web.listen-address={address}")
    with (
        log,
        httpx.Client(base_url=f"http://{address}/api/v1", timeout=10) as asked,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            yield asked
        finally:
            process.terminate()


def series(prometheus: httpx.Client, expression: str) -> list[Any]:
    """The series of a query now; none while Prometheus starts."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    try:
        answer = prometheus.get("/query", params={"query": expression})
    except httpx.TransportError:
        return []
    if answer.status_code == 503:
        return []
    found: list[Any] = answer.raise_for_status().json()["data"]["result"]
    return found


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: str(file.stem))
def test_every_dashboard_query_returns_series(file: Path, prometheus: httpx.Client, client: httpx.Client) -> None:
    queries = {
        (panel["title"], target["expr"])
        for panel in json.loads(file.read_text())["panels"]
        for target in panel["targets"]
    }

    def empty() -> set[tuple[str, str]]:
        # A rate needs successful and refused requests between two scrapes.
        client.post("/predict", json=EXAMPLE).raise_for_status()
        assert client.post("/predict", json={}).status_code == 422
        return {(title, query) for title, query in queries if not series(prometheus, query)}

    try:
        wait_until(lambda: not empty(), 30)
    except AssertionError:
        pytest.fail(f"without series: {empty()}")


def test_every_alert_uses_existing_metrics_and_only_the_harm_alert_fires(prometheus: httpx.Client) -> None:
    [group] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    names = {name for rule in group["rules"] for name in re.findall(r"\bdosel_\w+", rule["expr"])}
    wait_until(lambda: all(series(prometheus, name) for name in names))
    firing = 'ALERTS{alertstate="firing"}'
    wait_until(lambda: series(prometheus, firing) != [])
    # This Prometheus has no key, and so does not see the harm of the closed use case.
    alarms = [(found["metric"]["alertname"], found["metric"]["use_case"]) for found in series(prometheus, firing)]
    assert alarms == [("DoselHarmed", "covertype")]


def test_every_alert_links_to_an_existing_section_of_the_docs() -> None:
    [group] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]:
        page, _, section = rule["annotations"]["link"].partition("#")
        titles = re.findall(r"^#+ (.+)$", (MONITORING.parents[1] / page).read_text(), re.MULTILINE)
        assert section in {title.lower().replace(" ", "-") for title in titles}
