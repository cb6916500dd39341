"""Local servers without Docker, for `make services` and the tests: what they share, and MinIO.

Each server has its own folder, listens on 127.0.0.1 at a free port chosen when the folder is created, and has one user
with a random password. Started again, it has the same data at the same address.
"""

import json
import os
import secrets
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import httpx

from dosel.embedded.preflight import free_ports, taken
from dosel.embedded.processes import Processes
from dosel.embedded.services import HOST, Service
from dosel.errors import ProgramMissing, StartupError
from dosel.files import replace_file

USER = "dosel"
START_SECONDS = 60
LOOK_SECONDS = 2
POLL_SECONDS = 0.05


class LocalServer(ABC):
    """A server whose data and process record are in folders under `home`.

    Args:
        caller: the environment to start it in.
        lasting: whether committed data must survive a power cut; without that it is faster.

    Raises:
        ProgramMissing: the server is not installed; the message says how to install it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    ports_needed: ClassVar[int]

    def __init__(self, home: Path, caller: Mapping[str, str], lasting: bool = True) -> None:
        self.home = home
        self.folder = home / self.name
        self._processes = Processes(home)
        self._caller = {name: value for name, value in caller.items() if not name.startswith("MINIO_")}
        self._lasting = lasting
        self._find()
        self.ports, self.password = self._access()

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def running(self) -> bool:
        return self._processes.leader(self.name) is not None

    def start(self) -> None:
        """Start the server, unless it is running, and wait until it answers.

        Raises:
            StartupError: it ended, or took too long; the message has the end of its log.
        """
        if not self.running:
            self._prepare()
            service = Service(self.name, self.title, self._command(), self.port)
            self._processes.start(service, self._caller | self._environment())
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if not self.running:
                raise StartupError(f"{self.title} stopped unexpectedly.\n{self.tail()}")
            if time.monotonic() > deadline:
                self.stop()
                raise StartupError(f"{self.title} does not answer after {START_SECONDS} s.\n{self.tail()}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        self._processes.stop([self.name])

    @property
    @abstractmethod
    def settings(self) -> dict[str, str]:
        """The environment variables that make the platform use this server."""

    @property
    @abstractmethod
    def address(self) -> str:
        """The server's address and login, for a person."""

    @abstractmethod
    def _find(self) -> None: ...

    @abstractmethod
    def _prepare(self) -> None: ...

    @abstractmethod
    def _command(self) -> tuple[str, ...]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    def _environment(self) -> dict[str, str]:
        return {}

    def _access(self) -> tuple[list[int], str]:
        """Ports and password: created once and kept; new ports if another process uses the old ones."""
        file = self.home / f"{self.name}.json"
        kept = json.loads(file.read_text()) if file.exists() else {}
        ports: list[int] = kept.get("ports", [])
        password: str = kept.get("password") or secrets.token_hex(16)
        if not ports or (not self.running and any(map(taken, ports))):
            ports = free_ports(self.ports_needed)
            replace_file(file, json.dumps({"ports": ports, "password": password}))
        return ports, password

    def tail(self) -> str:
        """The last lines of the server's log, and the log's path."""
        return self._processes.tail(self.name)


class Minio(LocalServer):
    """An S3 server, with its console."""

    name = "minio"
    title = "MinIO"
    ports_needed = 2

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        return {"DOSEL_S3_ENDPOINT": self.url, "AWS_ACCESS_KEY_ID": USER, "AWS_SECRET_ACCESS_KEY": self.password}

    @property
    def address(self) -> str:
        return f"{self.url}   console http://{HOST}:{self.ports[1]}   user {USER}, password {self.password}"

    def _find(self) -> None:
        path = self._caller.get("PATH", os.defpath)
        server = shutil.which("minio", path=os.pathsep.join([path, str(self._gopath() / "bin")]))
        if server is None:
            raise ProgramMissing(
                "no minio on PATH or in Go's bin folder "
                "(with Go 1.24 or newer: go install github.com/minio/minio@latest; macOS: brew install minio)"
            )
        self._server = server

    def _gopath(self) -> Path:
        go = shutil.which("go", path=self._caller.get("PATH", os.defpath))
        if go:
            result = subprocess.run(
                [go, "env", "GOPATH"], env=self._caller, capture_output=True, text=True, check=False, timeout=30
            )
            if result.returncode == 0 and result.stdout.strip():
                return Path(result.stdout.strip())
        return Path(self._caller.get("HOME", "~")).expanduser() / "go"

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def _command(self) -> tuple[str, ...]:
        return (
            *(self._server, "server", "--address", f"{HOST}:{self.port}", "--console-address"),
            # Without this flag it creates a folder in the user's home.
            *(f"{HOST}:{self.ports[1]}", "--certs-dir", str(self.home / "certs"), str(self.folder)),
        )

    def _environment(self) -> dict[str, str]:
        return {"MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": self.password, "MINIO_UPDATE": "off"}

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/minio/health/ready", timeout=LOOK_SECONDS).is_success
        except httpx.HTTPError:
            return False
