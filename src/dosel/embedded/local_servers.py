"""A MariaDB and a MinIO of one's own where there is no Docker: for `make services`, and for the tests.

Each has a folder, listens on 127.0.0.1 at a port that was free when the folder was made, and lets in one
user, whose password was drawn then. Started again, it has the same data at the same address.
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
import pymysql

from dosel.embedded.preflight import free_ports, taken
from dosel.embedded.processes import Processes
from dosel.embedded.services import HOST, Service
from dosel.errors import ProgramMissing, StartupError

USER = "dosel"
SCHEMA = "datadb"
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")
"""Where Debian puts servers, and a user's PATH does not reach."""

START_SECONDS = 60
INSTALL_SECONDS = 120
LOOK_SECONDS = 2
POLL_SECONDS = 0.05
LOG_LINES = 12


class LocalServer(ABC):
    """A server that keeps data in a folder of its own under `home`, where its process is on record, too.

    Args:
        caller: the environment to start it in.
        lasting: whether what it says is stored must survive a power cut; without, it is faster.

    Raises:
        ProgramMissing: this machine has no such server; the message says how to get it.
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
        """Starts the server and waits until it can be used; running already, it stays as it is.

        Raises:
            StartupError: it ended instead, or took too long; the message has the end of its log.
        """
        if not self.running:
            self._prepare()
            service = Service(self.name, self.title, self._command(), self.port)
            self._processes.start(service, self._caller | self._environment())
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if not self.running:
                raise StartupError(f"{self.title} has ended.\n{self.tail()}")
            if time.monotonic() > deadline:
                self.stop()
                raise StartupError(f"{self.title} does not answer after {START_SECONDS} s.\n{self.tail()}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        self._processes.stop([self.name])

    @property
    @abstractmethod
    def settings(self) -> dict[str, str]:
        """The variables with which the platform uses this server."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where it is, and how a person gets in."""

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
        """Ports and password: drawn once and kept, but for ports that somebody else took meanwhile."""
        file = self.home / f"{self.name}.json"
        kept = json.loads(file.read_text()) if file.exists() else {}
        ports: list[int] = kept.get("ports", [])
        password: str = kept.get("password") or secrets.token_hex(16)
        if not ports or (not self.running and any(map(taken, ports))):
            ports = free_ports(self.ports_needed)
            write_private(file, json.dumps({"ports": ports, "password": password}))
        return ports, password

    def tail(self) -> str:
        """The end of the server's log, and where the whole of it is."""
        log = self._processes.log(self.name)
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:] if log.exists() else []
        return "\n".join([*(f"  | {line}" for line in lines), f"Its log: {log}"])


class MariaDB(LocalServer):
    """Set up as MySQL is in Compose: texts compare without case unless told, and who asks to load rows may."""

    name = "mariadb"
    title = "MariaDB"
    ports_needed = 1

    def url(self, schema: str = SCHEMA, dialect: str = "mysql") -> str:
        """As the data store is named in Compose; SQLAlchemy by itself, or MLflow, need the driver with the dialect."""
        return f"{dialect}://{USER}:{self.password}@{HOST}:{self.port}/{schema}"

    @property
    def settings(self) -> dict[str, str]:
        return {"DOSEL_WAREHOUSE_URL": self.url()}

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}   user {USER}, password {self.password}, schema {SCHEMA}"

    def _find(self) -> None:
        path = os.pathsep.join([self._caller.get("PATH", os.defpath), *SYSTEM_FOLDERS])
        server, installer = (shutil.which(name, path=path) for name in ("mariadbd", "mariadb-install-db"))
        if server is None or installer is None:
            raise ProgramMissing(
                "no mariadbd on PATH (Debian: apt-get install mariadb-server; macOS: brew install mariadb)"
            )
        self._server, self._installer = server, installer

    def _prepare(self) -> None:
        write_private(
            self.home / "mariadb.sql",
            f"CREATE DATABASE IF NOT EXISTS {SCHEMA};\n"
            f"CREATE USER IF NOT EXISTS '{USER}'@'{HOST}' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'{HOST}';\n",
        )
        if self.folder.exists():
            return
        half = self.folder.with_suffix(".half")
        shutil.rmtree(half, ignore_errors=True)
        try:
            subprocess.run(
                [
                    *(self._installer, "--no-defaults", f"--datadir={half}", "--skip-test-db", "--skip-name-resolve"),
                    *("--auth-root-authentication-method=socket", *self._account()),
                ],
                env=self._caller,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=True,
                timeout=INSTALL_SECONDS,
            )
        except subprocess.CalledProcessError as error:
            raise StartupError(f"mariadb-install-db failed.\n{error.stdout}{error.stderr}") from error
        except subprocess.TimeoutExpired as error:
            raise StartupError(f"mariadb-install-db did not end within {INSTALL_SECONDS} s") from error
        half.rename(self.folder)

    def _command(self) -> tuple[str, ...]:
        fast = () if self._lasting else ("--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=0")
        return (
            *(self._server, "--no-defaults", f"--datadir={self.folder}", f"--init-file={self.home / 'mariadb.sql'}"),
            *(f"--bind-address={HOST}", f"--port={self.port}", "--skip-name-resolve"),
            # In the data folder; its whole path might be longer than a socket's may be.
            *("--socket=mariadb.sock", "--pid-file=mariadb.pid"),
            # Twenty processes that race each other have a pool of connections each.
            "--max-connections=1000",
            *("--character-set-server=utf8mb4", "--collation-server=utf8mb4_general_ci", "--local-infile=1"),
            *self._account(),
            *fast,
        )

    def _answers(self) -> bool:
        try:
            pymysql.connect(
                host=HOST,
                port=self.port,
                user=USER,
                password=self.password,
                database=SCHEMA,
                connect_timeout=LOOK_SECONDS,
                read_timeout=LOOK_SECONDS,
            ).close()
        except pymysql.err.OperationalError:
            return False
        return True

    def _account(self) -> tuple[str, ...]:
        """mariadbd does not run as root unless it is told to, as in a container."""
        return ("--user=root",) if os.geteuid() == 0 else ()


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
            told = subprocess.run(
                [go, "env", "GOPATH"], env=self._caller, capture_output=True, text=True, check=False, timeout=30
            )
            if told.returncode == 0 and told.stdout.strip():
                return Path(told.stdout.strip())
        return Path(self._caller.get("HOME", "~")).expanduser() / "go"

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def _command(self) -> tuple[str, ...]:
        return (
            *(self._server, "server", "--address", f"{HOST}:{self.port}", "--console-address"),
            # Without this folder it makes one in the user's home.
            *(f"{HOST}:{self.ports[1]}", "--certs-dir", str(self.home / "certs"), str(self.folder)),
        )

    def _environment(self) -> dict[str, str]:
        return {"MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": self.password, "MINIO_UPDATE": "off"}

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/minio/health/ready", timeout=LOOK_SECONDS).is_success
        except httpx.HTTPError:
            return False


LOCAL_SERVERS: tuple[type[LocalServer], ...] = (MariaDB, Minio)


def write_private(file: Path, text: str) -> None:
    """Writes a file that nobody but its owner may read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(text)
