"""`make services`: starts a local database server and MinIO and prints how to use them."""

import shlex
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from rich.console import Console

from dosel.embedded.guard import guarded
from dosel.embedded.local_databases import database_kind
from dosel.embedded.local_servers import LocalServer, Minio
from dosel.embedded.processes import GONE, Processes, end_on_signals, ignore_signals
from dosel.errors import StartupError
from dosel.files import replace_file

POLL_SECONDS = 0.5
ENVIRONMENT = "environment"
"""File with the variables to set; it exists while the servers are meant to run."""


def up(home: Path, caller: Mapping[str, str], console: Console, detach: bool) -> None:
    """Start both servers and print how to use them; attached, return when they are stopped, or stop them on Ctrl-C.

    Raises:
        ProgramMissing: one of them is not installed; then none is started.
        StartupError: one did not start, or ended by itself; then the other is stopped, too.
    """
    place = _folder(home)
    servers: list[LocalServer] = [database_kind(place, caller)(place, caller), Minio(place, caller)]
    mine = [server for server in servers if not server.running]
    with ExitStack() as ending:
        if mine and not detach:
            ending.enter_context(guarded(place))
        try:
            end_on_signals()
            for server in servers:
                server.start()
                console.print(f"[green]✓[/] {server.title:<8} {server.address}", highlight=False)
            _print_usage(servers, place / ENVIRONMENT, console)
            if mine and not detach:
                console.print("\nCtrl-C stops them; so does `make services-down` in another terminal.")
                _watch(servers, place / ENVIRONMENT)
        except BaseException as error:
            _end(mine, place / ENVIRONMENT, console)
            if not isinstance(error, KeyboardInterrupt):
                raise


def down(home: Path, console: Console) -> None:
    """Stop the servers that are running. Their data stays."""
    processes = Processes(_folder(home))
    started = processes.started()
    (_folder(home) / ENVIRONMENT).unlink(missing_ok=True)
    processes.stop()
    for name in started:
        console.print(f"{name:<8} stopped")


def forget(home: Path) -> None:
    """Stop the servers and remove their data."""
    down(home, Console(quiet=True))
    shutil.rmtree(_folder(home), ignore_errors=True)


def _folder(home: Path) -> Path:
    """The servers' folder, apart from the platform's processes, so that `make down` leaves the servers running."""
    return home / "services"


def _print_usage(servers: list[LocalServer], file: Path, console: Console) -> None:
    lines = [f"export {name}={shlex.quote(value)}" for server in servers for name, value in server.settings.items()]
    replace_file(file, "\n".join(lines) + "\n")
    console.print("\nThe platform uses the servers if these variables are set:\n", highlight=False)
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False)
    console.print(f"\n  . {shlex.quote(str(file))} && make up", highlight=False, markup=False)


def _watch(servers: list[LocalServer], file: Path) -> None:
    """Return when another process has stopped the servers; a server that ends by itself is an error."""
    while file.exists():
        for server in servers:
            if not server.running and file.exists():
                raise StartupError(f"{server.title} stopped unexpectedly.\n{server.tail()}")
        time.sleep(POLL_SECONDS)


def _end(servers: list[LocalServer], file: Path, console: Console) -> None:
    ignore_signals()
    file.unlink(missing_ok=True)
    for server in servers:
        server.stop()
        with suppress(*GONE):
            console.print(f"{server.name:<8} stopped")
