"""A MariaDB of one's own, in a folder of its own: what MySQL is stood in for by where there is no Docker."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import pymysql

START_SECONDS = 60
SCHEMA = "datadb"


class Server:
    """A server on a free port of this machine; its data outlives `kill` and `start`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        subprocess.run(
            [
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={folder / 'data'}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @property
    def url(self) -> str:
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{SCHEMA}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *options: str) -> None:
        """Starts it and waits until it answers."""
        command = ["mariadbd", "--no-defaults", f"--datadir={self._folder / 'data'}"]
        command += [f"--socket={self._folder / 's'}", f"--port={self.port}", "--bind-address=127.0.0.1", *options]
        if os.geteuid() == 0:
            command.append("--user=root")
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = monotonic() + START_SECONDS
        while True:
            try:
                with self.connect() as connection:
                    connection.cursor().execute(f"CREATE DATABASE IF NOT EXISTS {SCHEMA}")
                return
            except pymysql.err.OperationalError:
                if self._process.poll() is not None or monotonic() > deadline:
                    raise
                sleep(0.05)

    def connect(self, **options: object) -> "pymysql.connections.Connection":
        return pymysql.connect(host="127.0.0.1", port=self.port, user="root", **options)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_SECONDS)
            self._process = None


def available() -> bool:
    return all(shutil.which(program) for program in ("mariadbd", "mariadb-install-db"))


@contextmanager
def running(*options: str) -> Iterator[Server]:
    """A server for the length of a block."""
    with tempfile.TemporaryDirectory(prefix="mariadb-") as folder:
        server = Server(Path(folder))
        try:
            server.start(*options)
            yield server
        finally:
            server.end()
