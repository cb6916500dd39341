"""Local database servers without Docker: MySQL where it is installed, or else MariaDB."""

import os
import shutil
import subprocess
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pymysql

from dosel.embedded.local_servers import LOOK_SECONDS, USER, LocalServer
from dosel.embedded.services import HOST
from dosel.errors import ProgramMissing, StartupError
from dosel.files import replace_file

SCHEMA = "datadb"
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")
"""Folders of servers on Debian that are not on a user's PATH."""

INSTALL_SECONDS = 120
VERSION_SECONDS = 20


class Database(LocalServer):
    """A local server: LOAD DATA LOCAL is enabled, and the default collation ignores case."""

    ports_needed = 1
    collation: ClassVar[str]
    fast: ClassVar[tuple[str, ...]]
    """Options with which committed data may be lost in a power cut."""
    root: ClassVar[str]
    """A statement that closes the account without a password, which the server creates with its data."""
    _server: str

    def url(self, schema: str = SCHEMA, dialect: str = "mysql") -> str:
        """The server's URL, as Compose writes it. SQLAlchemy alone and MLflow need a dialect with a driver."""
        return f"{dialect}://{USER}:{self.password}@{HOST}:{self.port}/{schema}"

    @property
    def settings(self) -> dict[str, str]:
        return {"DOSEL_WAREHOUSE_URL": self.url()}

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}   user {USER}, password {self.password}, schema {SCHEMA}"

    @property
    def version(self) -> str:
        """The line that the program prints about itself."""
        return _version(self._server)

    @property
    @abstractmethod
    def _installation(self) -> tuple[str, ...]:
        """The command that fills a data folder, without the folder."""

    def _prepare(self) -> None:
        replace_file(
            self.home / f"{self.name}.sql",
            f"{self.root}CREATE DATABASE IF NOT EXISTS {SCHEMA};\n"
            f"CREATE USER IF NOT EXISTS '{USER}'@'{HOST}' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'{HOST}';\n",
        )
        if self.folder.exists():
            return
        half = self.folder.with_suffix(".half")
        shutil.rmtree(half, ignore_errors=True)
        program = Path(self._installation[0]).name
        try:
            subprocess.run(
                [*self._installation, f"--datadir={half}", *_account()],
                env=self._caller,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=True,
                timeout=INSTALL_SECONDS,
            )
        except subprocess.CalledProcessError as error:
            raise StartupError(f"{program} failed.\n{error.stdout}{error.stderr}") from error
        except subprocess.TimeoutExpired as error:
            raise StartupError(f"{program} did not end within {INSTALL_SECONDS} s") from error
        half.rename(self.folder)

    def _command(self) -> tuple[str, ...]:
        return (
            *(self._server, "--no-defaults", f"--datadir={self.folder}"),
            *(f"--init-file={self.home / f'{self.name}.sql'}", f"--bind-address={HOST}", f"--port={self.port}"),
            # Relative to the data folder, since the whole path may exceed the limit for a socket.
            *("--skip-name-resolve", f"--socket={self.name}.sock", f"--pid-file={self.name}.pid"),
            # Tests start twenty processes, each with a pool of connections.
            "--max-connections=1000",
            *("--character-set-server=utf8mb4", f"--collation-server={self.collation}", "--local-infile=1"),
            *_account(),
            *(() if self._lasting else self.fast),
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

    def _which(self, program: str) -> str | None:
        path = os.pathsep.join([self._caller.get("PATH", os.defpath), *SYSTEM_FOLDERS])
        return shutil.which(program, path=path)


class MySQL(Database):
    """MySQL 8.4 or newer, with its own default collation."""

    name = "mysql"
    title = "MySQL"
    collation = "utf8mb4_0900_ai_ci"
    fast = (
        *("--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=OFF"),
        # Creating a table makes no file.
        *("--innodb-file-per-table=OFF", "--performance-schema=OFF"),
    )
    root = "ALTER USER 'root'@'localhost' ACCOUNT LOCK;\n"

    def _find(self) -> None:
        server = self._which("mysqld")
        # MariaDB has a program of this name, too.
        if server is None or "MariaDB" in _version(server):
            raise ProgramMissing("no mysqld of MySQL on PATH (macOS: brew install mysql)")
        self._server = server

    @property
    def _installation(self) -> tuple[str, ...]:
        return (self._server, "--no-defaults", "--initialize-insecure", *self._own())

    def _command(self) -> tuple[str, ...]:
        return (*super()._command(), *self._own())

    def _own(self) -> tuple[str, ...]:
        # Debian's folder for files of statements exists only with its package; one server has no replica.
        return ("--secure-file-priv=NULL", "--mysqlx=OFF", "--skip-log-bin", "--innodb-redo-log-capacity=16M")


class MariaDB(Database):
    name = "mariadb"
    title = "MariaDB"
    collation = "utf8mb4_general_ci"
    fast = ("--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=0")
    root = ""

    def _find(self) -> None:
        server, installer = self._which("mariadbd"), self._which("mariadb-install-db")
        if server is None or installer is None:
            raise ProgramMissing(
                "no mariadbd on PATH (Debian: apt-get install mariadb-server; macOS: brew install mariadb)"
            )
        self._server, self._installer = server, installer

    @property
    def _installation(self) -> tuple[str, ...]:
        return (
            *(self._installer, "--no-defaults", "--skip-test-db", "--skip-name-resolve"),
            "--auth-root-authentication-method=socket",
        )


DATABASES: tuple[type[Database], ...] = (MySQL, MariaDB)


def database_kind(home: Path, caller: Mapping[str, str], kinds: Sequence[type[Database]] = DATABASES) -> type[Database]:
    """The server that has its data in `home`, or else the first that is installed.

    Raises:
        ProgramMissing: none is installed; the message says how to install one.
    """
    for kind in kinds:
        if (home / kind.name).exists():
            return kind
    missing = []
    for kind in kinds:
        try:
            kind(home, caller)
        except ProgramMissing as error:
            missing.append(str(error))
        else:
            return kind
    raise ProgramMissing("; ".join(missing))


def _account() -> tuple[str, ...]:
    """A server runs as root, as in a container, only with this flag."""
    return ("--user=root",) if os.geteuid() == 0 else ()


def _version(server: str) -> str:
    try:
        done = subprocess.run(
            [server, "--version"], capture_output=True, text=True, check=False, timeout=VERSION_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
