"""Every process that a service starts is found and stopped, and no other process is."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from dosel.embedded import processes
from dosel.embedded.processes import Processes
from dosel.embedded.services import Service

OBEDIENT = "import os, signal; print('ready', os.getpid(), *os.environ, flush=True); signal.pause()"

STUBBORN_GRANDCHILD = """
import os, signal, sys
if os.fork() == 0:
    # As Airflow's workers do: another name, another parent, and no ear for SIGTERM.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        print('ready', os.getpid(), flush=True)
        os.execv(sys.executable, ['airflow worker -- renamed', '-c', 'import signal; signal.pause()'])
    os._exit(0)
signal.pause()
"""

DYING_LEADER = STUBBORN_GRANDCHILD.replace("\nsignal.pause()\n", "\nos.wait()\n")


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.01)


class Home:
    """A home in which services are started; its sessions are killed after the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes = Processes(folder)

    def start(self, code: str, name: str = "fake") -> psutil.Process:
        """Start a service, wait for its first line, and return the process whose number the line has."""
        service = Service(name, name.title(), (sys.executable, "-c", code))
        log = self.processes.log(name)
        before = len(log.read_text()) if log.exists() else 0
        self.processes.start(service, {"GIVEN": "1"})
        until(lambda: log.read_text()[before:].endswith("\n"))
        return psutil.Process(int(log.read_text()[before:].split()[1]))

    def record(self, name: str = "fake") -> dict[str, int]:
        record: dict[str, int] = json.loads((self.folder / "run" / f"{name}.json").read_text())
        return record

    def write_record(self, pid: int, created: float, name: str = "fake") -> None:
        (self.folder / "run").mkdir(parents=True, exist_ok=True)
        (self.folder / "run" / f"{name}.json").write_text(json.dumps({"pid": pid, "created": created}))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.5)
    made = Home(tmp_path)
    yield made
    for name in made.processes.started():
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(made.record(name)["pid"], signal.SIGKILL)


@pytest.fixture
def bystander() -> Iterator[psutil.Process]:
    """A process that dosel did not start, with a session of its own."""
    child = subprocess.Popen([sys.executable, "-c", OBEDIENT], stdout=subprocess.DEVNULL, start_new_session=True)
    yield psutil.Process(child.pid)
    child.kill()
    child.wait()


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_service_is_found_while_it_runs(home: Home) -> None:
    process = home.start(OBEDIENT)
    assert home.processes.leader("fake") == process
    assert Processes(home.folder).leader("fake") == process
    assert home.processes.started() == ["fake"]


def test_a_service_gets_only_the_given_environment(home: Home) -> None:
    home.start(OBEDIENT)
    words = home.processes.log("fake").read_text().split()
    assert "GIVEN" in words
    assert "HOME" not in words


def test_a_service_that_obeys_sigterm_is_not_killed(home: Home) -> None:
    process = home.start(OBEDIENT)
    assert home.processes.stop() == []
    assert not alive(process)
    assert home.processes.started() == []
    assert home.processes.leader("fake") is None


@pytest.mark.parametrize("by_another", [False, True], ids=["by who started it", "by another process of ours"])
def test_a_grandchild_that_ignores_sigterm_is_killed(home: Home, by_another: bool) -> None:
    grandchild = home.start(STUBBORN_GRANDCHILD)
    leader = home.processes.leader("fake")
    assert leader is not None
    until(lambda: grandchild.cmdline()[:1] == ["airflow worker -- renamed"])
    assert grandchild.ppid() != leader.pid
    stopping = Processes(home.folder) if by_another else home.processes
    assert stopping.stop() == ["fake"]
    assert not alive(grandchild)
    assert not alive(leader)
    assert stopping.started() == []


def test_descendants_are_found_after_their_leader_has_exited(home: Home) -> None:
    grandchild = home.start(DYING_LEADER)
    until(lambda: home.processes.leader("fake") is None)
    assert alive(grandchild)
    assert home.processes.started() == ["fake"]
    assert home.processes.stop() == ["fake"]
    assert not alive(grandchild)


def test_stop_returns_only_the_services_that_were_killed(home: Home) -> None:
    home.start(OBEDIENT, "good")
    home.start(STUBBORN_GRANDCHILD, "bad")
    assert home.processes.stop() == ["bad"]


def test_a_reused_process_id_is_not_the_service(home: Home, bystander: psutil.Process) -> None:
    home.write_record(bystander.pid, bystander.create_time() - 3600)
    assert home.processes.leader("fake") is None
    assert home.processes.stop() == []
    assert alive(bystander)
    assert home.processes.started() == []


def test_a_process_is_found_after_the_clock_changed(home: Home) -> None:
    process = home.start(OBEDIENT)
    home.write_record(process.pid, process.create_time() - 5)
    assert home.processes.leader("fake") == process
    home.processes.stop()
    assert not alive(process)


def test_a_process_record_from_before_the_boot_is_ignored(home: Home, bystander: psutil.Process) -> None:
    home.write_record(bystander.pid, psutil.boot_time() - 3600)
    assert home.processes.stop() == []
    assert alive(bystander)


@pytest.mark.parametrize("text", ["", "{", None], ids=["empty", "cut short", "missing"])
def test_an_unreadable_process_record_is_ignored(text: str | None, home: Home) -> None:
    if text is not None:
        home.write_record(1, 0)
        (home.folder / "run" / "fake.json").write_text(text)
    assert home.processes.leader("fake") is None
    assert home.processes.stop() == []
    assert home.processes.started() == []


def test_a_killed_service_has_no_leader_and_stays_recorded(home: Home) -> None:
    home.start(OBEDIENT).kill()
    until(lambda: home.processes.leader("fake") is None)
    assert home.processes.started() == ["fake"]


def test_a_restart_appends_to_the_log(home: Home) -> None:
    for _ in range(2):
        home.start(OBEDIENT)
        home.processes.stop()
    assert home.processes.log("fake").read_text().count("ready") == 2
