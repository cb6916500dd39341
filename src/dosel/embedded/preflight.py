"""Checks the disk, the folder and the ports before anything is started."""

import shutil
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from dosel.embedded.services import HOST, Service
from dosel.errors import StartupError
from dosel.settings import Settings

DISK_BYTES = 1_000_000_000
"""Disk space that a first run needs (databases, logs, a few models), with a margin."""


def check_folder(home: Path) -> None:
    """Create the platform's folder, if it is missing, and check that it can be written.

    Raises:
        StartupError: it cannot.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        # Rows, models and passwords are for their owner alone; a folder of an earlier version may be open to others.
        home.chmod(0o700)
        probe = home / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StartupError(f"cannot write to {home} ({error.strerror}): set DOSEL_HOME elsewhere") from error


def check(settings: Settings, to_start: Iterable[Service]) -> None:
    """Check the disk and the ports.

    Raises:
        StartupError: a precondition fails; the message says what to change.
    """
    free = shutil.disk_usage(settings.home).free
    if free < DISK_BYTES:
        raise StartupError(
            f"the disk of {settings.home} has {free / 1e6:,.0f} MB left and {DISK_BYTES / 1e6:,.0f} MB are needed: "
            f"free some space, or set DOSEL_HOME to a folder on another disk"
        )
    ports: dict[int, Service] = {}
    for service in to_start:
        if service.port is None:
            continue
        if (other := ports.setdefault(service.port, service)) is not service:
            raise StartupError(
                f"{other.title} and {service.title} have the same port {service.port}: change {service.port_setting}"
            )
        if taken(service.port):
            another = service.port + (10_000 if service.port < 55_000 else -10_000)
            raise StartupError(
                f"port {service.port} ({service.title}) is used{_used_by(service.port)}: stop that process, "
                f"or start with another port, such as {service.port_setting}={another} make up"
            )


def free_ports(count: int) -> list[int]:
    """Different ports of this machine on which no process listens."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind((HOST, 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def taken(port: int) -> bool:
    """Whether a process listens on a port of this machine."""
    with socket.socket() as probe:
        # As servers do: a port whose old connections are in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def _used_by(port: int) -> str:
    with suppress(psutil.AccessDenied, psutil.NoSuchProcess):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid:
                    return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
                return " by a process of another user"
    return ""
