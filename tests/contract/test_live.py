"""The API as a process: overload, shutdown, and two workers that each follow Production."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, select

from app.http.worker_metrics import FOLDER
from dosel.db.engine import connect
from dosel.db.tables import ANSWERS
from dosel.embedded.services import API
from dosel.usecases.covertype import COVERTYPE
from tests.contract.conftest import Installation
from tests.contract.test_api import EXAMPLE, wait_until

Install = Callable[..., Installation]
BODY = json.dumps(EXAMPLE).encode()
BEGUN = 3


@contextmanager
def served(here: Installation, *flags: str, **environment: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """The process and port of an API that runs as `make up` starts it, with a loaded model."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [*API, "--port", str(port), *flags]
    leading = {
        "DOSEL_HOME": str(here.settings.home),
        "DOSEL_WAREHOUSE_URL": here.settings.warehouse_url,
        "MLFLOW_TRACKING_URI": here.store,
    }
    log = (here.settings.home / "api.log").open("wb")
    with log, subprocess.Popen(command, env=os.environ | leading | environment, stdout=log, stderr=log) as process:
        try:
            wait_until(lambda: answers(port), 120)
            yield process, port
        finally:
            process.terminate()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).is_success
    except httpx.HTTPError:
        return False


def begin_request(port: int) -> HTTPConnection:
    """A request that has been sent in part."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(len(BODY)))
    connection.endheaders(BODY[:20])
    return connection


def finish_request(connection: HTTPConnection) -> int:
    """Send the rest of a request and return its status."""
    connection.send(BODY[20:])
    response = connection.getresponse()
    response.read()
    return response.status


@pytest.mark.soak
def test_incomplete_requests_take_no_place_and_are_finished_on_sigterm(install: Install) -> None:
    here = install(in_production=True)
    with served(here, DOSEL_QUEUE_DEPTH="1") as (process, port), ExitStack() as stack:
        url = f"http://127.0.0.1:{port}"
        waiting = [begin_request(port) for _ in range(BEGUN + 1)]
        for connection in waiting:
            stack.callback(connection.close)
        assert httpx.post(f"{url}/predict", json=EXAMPLE).is_success
        assert httpx.get(f"{url}/models").is_success

        waiting.pop().close()
        gone = 'dosel_requests_total{method="POST",route="/predict",status="499"} 1.0'
        wait_until(lambda: gone in httpx.get(f"{url}/metrics").text)
        assert 'route="/predict",status="5' not in httpx.get(f"{url}/metrics").text

        process.send_signal(signal.SIGTERM)
        wait_until(lambda: not answers(port))
        assert [finish_request(connection) for connection in waiting] == [200] * len(waiting)
        assert process.wait(timeout=30) == -signal.SIGTERM
    assert b"raceback" not in (here.settings.home / "api.log").read_bytes()
    with connect(here.settings.warehouse_url).connect() as warehouse:
        logged = warehouse.execute(select(func.count()).select_from(ANSWERS)).scalar_one()
    # The log also has the last predictions.
    assert logged == BEGUN + 1


@pytest.fixture(scope="module")
def two_workers(install: Install) -> Iterator[tuple[Installation, "subprocess.Popen[bytes]", str]]:
    """An API with two workers that both answer: its installation, main process and address."""
    here = install(in_production=True)
    with served(here, "--workers", "2") as (process, port):
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: len(seen(url)) == 2, 60)
        folder = Path(workers(process)[0].environ()[FOLDER])
        yield here, process, url
    assert not folder.exists()


def seen(url: str) -> set[tuple[str, int]]:
    """Processes and versions that answer new connections, which the system spreads over both workers."""
    found = set()
    for _ in range(20):
        with httpx.Client(base_url=url) as client:
            answer = client.post("/predict", json=EXAMPLE)
            if answer.is_success:
                prefix = answer.headers["x-request-id"].partition("-")[0]
                found.add((prefix, answer.json()["model"]["version"]))
    return found


def figure(url: str, name: str, **labels: str) -> list[float]:
    """The samples of a metric with these labels, read from either worker."""
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").raise_for_status().text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return [sample.value for sample in samples if labels.items() <= sample.labels.items()]


def wait_for_new_text(url: str) -> None:
    """Wait until both workers show metrics as they are now: each shows the same text for a second."""

    def scrapes() -> set[float]:
        return {sum(figure(url, "dosel_requests_total", route="/metrics")) for _ in range(20)}

    shown = max(scrapes())
    wait_until(lambda: min(scrapes()) > shown)


Workers = tuple[Installation, "subprocess.Popen[bytes]", str]


def test_other_users_of_the_machine_read_nothing_of_the_cache(two_workers: Workers) -> None:
    """The API may have been started alone, without the folder that `make up` creates for its user only."""
    here, _, _ = two_workers
    cache = here.settings.home / "serving"
    assert list(cache.iterdir())
    assert cache.stat().st_mode & 0o077 == 0


@pytest.mark.soak
def test_each_worker_follows_production(two_workers: Workers) -> None:
    here, _, url = two_workers
    before = seen(url)
    number = here.promote(here.good[1])
    wait_until(lambda: {version for _, version in seen(url)} == {number}, 30)
    assert {process for process, _ in seen(url)} == {process for process, _ in before}


@pytest.mark.soak
def test_metrics_include_all_workers_also_a_killed_one(two_workers: Workers) -> None:
    here, process, url = two_workers

    def answered() -> float:
        return sum(figure(url, "dosel_requests_total", route="/predict", status="200"))

    def versions() -> list[float]:
        return figure(url, "dosel_model_version", use_case=COVERTYPE.name)

    wait_for_new_text(url)
    before = answered()
    seen(url)
    # Each scrape reaches one of the workers, which shows a text for a second.
    wait_until(lambda: {answered() for _ in range(20)} == {before + 20})
    newest = here.registry.ledger.history(COVERTYPE.model_name)[-1].to_version
    wait_until(lambda: versions() == [newest])
    wait_until(lambda: sum(figure(url, "dosel_prediction_log_stored_total")) == before + 20)

    killed, survivor = workers(process)
    folder = Path(survivor.environ()[FOLDER])
    killed.kill()
    # The killed worker's counters are still included, and its gauges are not.
    wait_until(lambda: answered() >= before + 20 and not list(folder.glob(f"gauge_*_{killed.pid}.db")))
    assert list(folder.glob(f"counter_{killed.pid}.db"))
    assert versions() == [newest]


def workers(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    children = [child for child in psutil.Process(process.pid).children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in children if "spawn_main" in str(child.cmdline())]
