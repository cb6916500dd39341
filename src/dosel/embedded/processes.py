"""Starts processes so that they and their descendants can be found and stopped later.

Each service leads its own session. Descendants stay in that session even if their parents die, so the session's number
finds Airflow's grandchildren after the service itself stopped unexpectedly.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from dosel.embedded.services import ROOT, Service

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GONE = (OSError, SystemExit)
"""Exceptions raised when stdout is closed (SystemExit by rich). They must not keep services running."""
STOP_SECONDS = 8
"""Time before a process is killed. Airflow's scheduler waits for its tasks, but each task may be killed and retried."""
LOG_LINES = 12
CLOCK_SECONDS = 60
"""Largest accepted difference of a process's start time, in case the clock is set; no pid is reused this soon."""


class Processes:
    """The services' processes, recorded in a folder under `home`."""

    def __init__(self, home: Path) -> None:
        self._records = home / "run"
        self._logs = home / "logs"
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def tail(self, name: str) -> str:
        """The last lines of a service's log, and the log's path."""
        log = self.log(name)
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:] if log.exists() else []
        return "\n".join([*(f"  | {line}" for line in lines), f"Its log: {log}"])

    def start(self, service: Service, environment: dict[str, str]) -> None:
        # Descendants of a dead service can be found only through its old record.
        self.stop([service.name])
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        with self.log(service.name).open("ab") as log:
            process = subprocess.Popen(
                service.command,
                cwd=ROOT,
                env=environment | ({"TMPDIR": str(service.temporary)} if service.temporary else {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children[service.name] = process
        created = psutil.Process(process.pid).create_time()
        self._record(service.name).write_text(json.dumps({"pid": process.pid, "created": created}))

    def leader(self, name: str) -> psutil.Process | None:
        """The service's own process, or None if it is not running."""
        record = self._read(name)
        if record is None:
            return None
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(record["pid"]))
            if _is(process, record) and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    def started(self) -> list[str]:
        """Names of the recorded services, running or not."""
        return sorted(file.stem for file in self._records.glob("*.json"))

    def stop(self, names: Iterable[str] | None = None) -> list[str]:
        """Stop every process of the named services, or of all recorded ones: SIGTERM first, then SIGKILL.

        Returns:
            Names of the services that were killed.
        """
        forced = []
        sessions = {name: self._session(name) for name in (self.started() if names is None else names)}
        for members in sessions.values():
            for process in members:
                with suppress(psutil.NoSuchProcess):
                    process.terminate()
        everyone = [process for members in sessions.values() for process in members]
        psutil.wait_procs(everyone, timeout=STOP_SECONDS)
        for name in sessions:
            # Listed again, since a stopping process may have started others.
            left = self._session(name)
            if left:
                forced.append(name)
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=STOP_SECONDS)
            self._record(name).unlink(missing_ok=True)
            if child := self._children.pop(name, None):
                child.poll()
        return forced

    def _session(self, name: str) -> list[psutil.Process]:
        """All living processes of a service's session."""
        record = self._read(name)
        if record is None or record["created"] < psutil.boot_time() - CLOCK_SECONDS:
            return []
        with suppress(psutil.NoSuchProcess):
            if not _is(psutil.Process(int(record["pid"])), record):
                # The pid belongs to another process now, so the old session has no members left.
                return []
        members = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError, psutil.AccessDenied):
                if os.getsid(process.pid) == record["pid"] and process.status() != psutil.STATUS_ZOMBIE:
                    members.append(process)
        return members

    def _record(self, name: str) -> Path:
        return self._records / f"{name}.json"

    def _read(self, name: str) -> dict[str, float] | None:
        try:
            record: dict[str, float] = json.loads(self._record(name).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return record


def _is(process: psutil.Process, record: dict[str, float]) -> bool:
    return abs(process.create_time() - record["created"]) < CLOCK_SECONDS


def end_on_signals() -> None:
    """Treat SIGTERM and a closed terminal like Ctrl-C, even if the caller ignored them."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)


def ignore_signals() -> None:
    """Ignore signals while services are stopped, so that a second Ctrl-C does not leave half of them running."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
