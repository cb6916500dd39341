"""`dosel services`: starting the servers, and stopping them from the same or another terminal."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from dosel.db.engine import connect, transaction
from dosel.embedded.local_databases import Database
from dosel.embedded.local_servers import Minio
from dosel.embedded.processes import Processes
from dosel.errors import WarehouseError
from tests.conftest import until

SECONDS = 120


class Home:
    """The folder of an installation, and commands that run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "home"
        self.environment_file = self.folder / "services" / "environment"
        self._environment = {n: v for n, v in os.environ.items() if not n.startswith(("DOSEL_", "AWS_"))}
        self._environment |= {"DOSEL_HOME": str(self.folder)}

    def dosel(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", "from dosel.cli import main; main()", *arguments]
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=False, timeout=SECONDS
        )

    def attached(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", "from dosel.cli import main; main()", "services"],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: process.poll() is not None or self.environment_file.exists(), SECONDS)
        return process

    def servers(self) -> list[psutil.Process]:
        processes = Processes(self.folder / "services")
        return [leader for name in processes.started() if (leader := processes.leader(name))]

    def settings(self) -> dict[str, str]:
        """The variables of a shell after it has read the environment file."""
        shown = subprocess.run(
            ["sh", "-c", f". '{self.environment_file}' && env"], env={}, capture_output=True, text=True, check=True
        )
        return dict(line.split("=", 1) for line in shown.stdout.splitlines())


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One home for all tests, since MySQL takes seconds to fill its folder."""
    return Home(tmp_path_factory.mktemp("services"))


@pytest.fixture
def home(installation: Home, database: Database, minio: Minio) -> Iterator[Home]:
    yield installation
    installation.dosel("services-down")


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_servers(number: signal.Signals, home: Home) -> None:
    process = home.attached()
    servers = home.servers()
    process.send_signal(number)
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    assert len(servers) == 2
    assert not any(server.is_running() for server in servers)
    assert not home.environment_file.exists()
    assert re.search(r"^(mysql|mariadb) +stopped$", output, re.MULTILINE)
    assert re.search(r"^minio +stopped$", output, re.MULTILINE)


@pytest.mark.soak
def test_services_down_stops_the_servers_keeps_their_data_and_ends_open_transactions(home: Home) -> None:
    assert home.dosel("services", "--detach").returncode == 0
    before = home.settings()
    engine = connect(before["DOSEL_WAREHOUSE_URL"])
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE kept (x INT PRIMARY KEY)"))
        connection.execute(text("INSERT INTO kept VALUES (1)"))
    lost = pytest.raises(WarehouseError, match=r"failed: .*is it running")
    with lost, transaction(engine) as connection:
        connection.execute(text("INSERT INTO kept VALUES (2)"))
        assert home.dosel("services-down").returncode == 0
        assert home.servers() == []
        connection.execute(text("INSERT INTO kept VALUES (3)"))

    process = home.attached()
    assert home.settings() == before
    with transaction(engine) as connection:
        assert connection.scalars(text("SELECT x FROM kept")).all() == [1]
    assert home.dosel("services-down").returncode == 0
    process.communicate(timeout=SECONDS)
    assert process.returncode == 0


@pytest.mark.soak
def test_a_server_that_exits_is_named_and_the_other_is_stopped(home: Home) -> None:
    process = home.attached()
    minio = next(server for server in home.servers() if "minio" in server.name())
    [database] = [server for server in home.servers() if server != minio]
    minio.kill()
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "MinIO stopped unexpectedly" in errors
    assert not database.is_running()


def test_a_second_start_prints_the_same_output_and_keeps_the_servers(home: Home) -> None:
    first = home.dosel("services", "--detach")
    servers = home.servers()
    again = home.dosel("services")
    assert again.returncode == 0
    assert again.stdout == first.stdout
    assert home.servers() == servers


def test_files_with_secrets_are_readable_by_the_owner_only(home: Home) -> None:
    home.dosel("services", "--detach")
    secret = home.settings()["AWS_SECRET_ACCESS_KEY"]
    holders = [
        file
        for file in (home.folder / "services").glob("*")
        if file.is_file() and (secret in file.read_text() or "password" in file.read_text())
    ]
    assert holders
    assert {file.stat().st_mode & 0o777 for file in holders} == {0o600}


@pytest.mark.soak
def test_forget_stops_the_servers_and_removes_their_data(home: Home) -> None:
    home.dosel("services", "--detach")
    assert home.dosel("forget").returncode == 0
    assert home.servers() == []
    assert not home.folder.exists()
