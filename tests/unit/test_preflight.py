"""The preflight check: each obstacle is reported before anything starts, in one line with the remedy."""

import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from dosel.embedded import preflight
from dosel.embedded.services import Service
from dosel.errors import StartupError
from dosel.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, bare_environment: None) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def listening() -> Iterator[int]:
    """A port on which this process listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def service(port: int | None, title: str = "MLflow", setting: str = "MLFLOW_PORT") -> Service:
    return Service(title.lower(), title, ("true",), port, setting)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def checked(settings: Settings, services: Iterable[Service]) -> None:
    preflight.check_folder(settings.home)
    preflight.check(settings, services)


def refusal(settings: Settings, *services: Service) -> str:
    with pytest.raises(StartupError) as raised:
        checked(settings, services)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_passing_check_creates_no_files(settings: Settings) -> None:
    checked(settings, [service(free_port()), service(None)])
    assert list(settings.home.iterdir()) == []


def test_a_used_port_is_named_with_its_process_and_the_setting(settings: Settings, listening: int) -> None:
    message = refusal(settings, service(listening))
    assert f"port {listening} (MLflow) is used by " in message
    assert f"(process {os.getpid()})" in message
    suggested = re.search(r"MLFLOW_PORT=(\d+) make up", message)
    assert suggested
    assert int(suggested[1]) != listening
    assert 1024 <= int(suggested[1]) <= 65535


@pytest.mark.parametrize(("port", "suggested"), [(5000, 15000), (60000, 50000)])
def test_the_suggested_port_is_valid(
    port: int, suggested: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "taken", lambda _: True)
    assert f"MLFLOW_PORT={suggested} make up" in refusal(settings, service(port))


def test_a_port_with_connections_in_time_wait_is_free(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            # The side that closes first keeps the port in TIME_WAIT.
            server.accept()[0].close()
    checked(settings, [service(port)])


def test_two_services_cannot_share_a_port(settings: Settings) -> None:
    port = free_port()
    message = refusal(settings, service(port, "MLflow"), service(port, "Airflow", "AIRFLOW_PORT"))
    assert message == f"MLflow and Airflow have the same port {port}: change AIRFLOW_PORT"


def test_ports_of_running_services_are_not_checked(settings: Settings, listening: int) -> None:
    checked(settings, [])


def test_a_full_disk_is_refused_with_the_space_needed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=preflight.DISK_BYTES - 1_000_000))
    message = refusal(settings)
    assert f"the disk of {settings.home} has 999 MB left and 1,000 MB are needed" in message
    assert "DOSEL_HOME" in message


def test_exactly_enough_disk_space_is_accepted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=preflight.DISK_BYTES))
    checked(settings, [])


@pytest.mark.parametrize("place", ["a-file", "a-file/below"])
def test_a_home_that_cannot_be_written_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    home = tmp_path / place
    message = refusal(Settings(home=home))
    assert message.startswith(f"cannot write to {home} (")
    assert "set DOSEL_HOME elsewhere" in message
