"""Local database and MinIO servers: finding their programs, starting, stopping and restarting with the same data."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dosel.embedded import local_databases, local_servers
from dosel.embedded.local_databases import MariaDB, MySQL, database_kind
from dosel.embedded.local_servers import LocalServer, Minio
from dosel.embedded.processes import Processes
from dosel.errors import ProgramMissing, StartupError
from tests.conftest import until


class Fake(LocalServer):
    """A minimal server, for the behaviour that all local servers share."""

    name = "fake"
    title = "Fake"
    ports_needed = 1
    code = "import signal; signal.pause()"
    address = ""
    settings: dict[str, str] = {}  # noqa: RUF012

    def _find(self) -> None: ...

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def _command(self) -> tuple[str, ...]:
        return (sys.executable, "-c", self.code)

    def _answers(self) -> bool:
        return self.running


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    made = Fake(tmp_path, {})
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (MySQL, "mysqld .*brew install mysql"),
        (MariaDB, "mariadbd .*apt-get install mariadb-server"),
        (Minio, "minio .*go install github"),
    ],
)
def test_a_missing_program_is_named_with_its_install_command(
    kind: type[LocalServer], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_databases, "SYSTEM_FOLDERS", ())
    with pytest.raises(ProgramMissing, match=message) as raised:
        kind(tmp_path / "home", {"PATH": str(tmp_path), "HOME": str(tmp_path)})
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "home").exists()


def program(folder: Path, name: str, version: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho '{version}'\n")
    (folder / name).chmod(0o755)


def test_mysql_is_preferred_and_a_home_keeps_the_server_of_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_databases, "SYSTEM_FOLDERS", ())
    caller = {"PATH": str(tmp_path / "bin")}
    for name in ("mysqld", "mariadbd", "mariadb-install-db"):
        program(tmp_path / "bin", name, "mysqld  Ver 10.11.14-MariaDB for debian-linux-gnu")
    assert database_kind(tmp_path / "home", caller) is MariaDB
    program(tmp_path / "bin", "mysqld", "mysqld  Ver 9.7.4 for Linux on x86_64 (Debian)")
    assert database_kind(tmp_path / "home", caller) is MySQL
    (tmp_path / "home" / "mariadb").mkdir()
    assert database_kind(tmp_path / "home", caller) is MariaDB
    with pytest.raises(ProgramMissing, match=r"no mysqld of MySQL .*; no mariadbd"):
        database_kind(tmp_path / "other", {"PATH": ""})


def test_minio_is_found_in_gos_bin_folder(tmp_path: Path) -> None:
    program = tmp_path / "go" / "bin" / "minio"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    assert Minio(tmp_path / "home", {"PATH": "", "HOME": str(tmp_path)})._command()[0] == str(program)


def test_address_and_password_are_the_same_after_a_restart(fake: Fake, tmp_path: Path) -> None:
    again = Fake(tmp_path, {})
    assert (again.ports, again.password) == (fake.ports, fake.password)
    assert (tmp_path / "fake.json").stat().st_mode & 0o777 == 0o600


def test_a_port_that_is_now_in_use_is_replaced_and_the_password_kept(fake: Fake, tmp_path: Path) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", fake.port))
        other.listen()
        again = Fake(tmp_path, {})
    assert again.port != fake.port
    assert again.password == fake.password


def test_a_server_that_exits_raises_an_error_with_the_end_of_its_log(fake: Fake) -> None:
    fake.code = "raise SystemExit('no room')"
    fake._answers = lambda: False  # type: ignore[method-assign]
    with pytest.raises(StartupError, match=r"Fake stopped unexpectedly\.\n(.*\n)*  \| no room\nIts log: .*fake\.log"):
        fake.start()


def test_a_server_that_never_responds_is_stopped(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_servers, "START_SECONDS", 0.2)
    fake._answers = lambda: False  # type: ignore[method-assign]
    with pytest.raises(StartupError, match="Fake does not answer after"):
        fake.start()
    assert not fake.running


def test_a_second_start_keeps_the_running_server(fake: Fake, tmp_path: Path) -> None:
    fake.start()
    before = Processes(tmp_path).leader("fake")
    Fake(tmp_path, {}).start()
    assert Processes(tmp_path).leader("fake") == before


KILLED_OWNER = """
import os, signal, sys
from pathlib import Path
from dosel.embedded.guard import guarded
from dosel.embedded.processes import Processes
from dosel.embedded.services import Service
home = Path(sys.argv[1])
with guarded(home):
    processes = Processes(home)
    processes.start(Service("fake", "Fake", (sys.executable, "-c", "import signal; signal.pause()")), dict(os.environ))
    print(processes.leader("fake").pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_children_of_a_killed_process_are_stopped(tmp_path: Path) -> None:
    owner = subprocess.run(
        [sys.executable, "-c", KILLED_OWNER, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    started = int(owner.stdout)
    until(lambda: not psutil.pid_exists(started), 60)
    until(lambda: Processes(tmp_path).started() == [], 60)
