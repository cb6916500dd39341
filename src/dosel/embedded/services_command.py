"""`make services`: a MariaDB and a MinIO to try the platform with, and how to use them."""

import shlex
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from rich.console import Console

from dosel.embedded.guard import guarded
from dosel.embedded.local_servers import LOCAL_SERVERS, LocalServer, write_private
from dosel.embedded.processes import GONE, Processes, end_on_signals, ignore_signals
from dosel.errors import StartupError

POLL_SECONDS = 0.5
ENVIRONMENT = "environment"
"""The file of the variables to set; it is there as long as the servers are meant to run."""


def up(home: Path, caller: Mapping[str, str], console: Console, detach: bool) -> None:
    """Starts both and tells how to use them; attached, it returns when they were ended, and ends them if it is.

    Raises:
        ProgramMissing: one of them is not on this machine; none is started then.
        StartupError: one did not come up, or ended by itself; the other is ended, too.
    """
    place = _folder(home)
    servers = [kind(place, caller) for kind in LOCAL_SERVERS]
    mine = [server for server in servers if not server.running]
    with ExitStack() as ending:
        if mine and not detach:
            ending.enter_context(guarded(place))
        try:
            end_on_signals()
            for server in servers:
                server.start()
                console.print(f"[green]✓[/] {server.title:<8} {server.address}", highlight=False)
            _tell(servers, place / ENVIRONMENT, console)
            if mine and not detach:
                console.print("\nCtrl-C ends them, as `make services-down` from another terminal does.")
                _watch(servers, place / ENVIRONMENT)
        except KeyboardInterrupt:
            _end(mine, place / ENVIRONMENT, console)
        except BaseException:
            _end(mine, place / ENVIRONMENT, console)
            raise


def down(home: Path, console: Console) -> None:
    """Ends them; none of them running is fine, too. Their data stay."""
    processes = Processes(_folder(home))
    started = processes.started()
    (_folder(home) / ENVIRONMENT).unlink(missing_ok=True)
    processes.stop()
    for name in started:
        console.print(f"{name:<8} ended")


def forget(home: Path) -> None:
    """Removes their data."""
    down(home, Console(quiet=True))
    shutil.rmtree(_folder(home), ignore_errors=True)


def _folder(home: Path) -> Path:
    """Apart from the platform's own processes, so that `make down` leaves the servers running."""
    return home / "services"


def _tell(servers: list[LocalServer], file: Path, console: Console) -> None:
    lines = [f"export {name}={shlex.quote(value)}" for server in servers for name, value in server.settings.items()]
    write_private(file, "\n".join(lines) + "\n")
    console.print("\nThe platform uses them where this is set, which one line does:\n", highlight=False)
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False)
    console.print(f"\n  . {shlex.quote(str(file))} && make up", highlight=False, markup=False)


def _watch(servers: list[LocalServer], file: Path) -> None:
    """Returns once somebody else ended them; one that died by itself is an error."""
    while file.exists():
        for server in servers:
            if not server.running and file.exists():
                raise StartupError(f"{server.title} has ended.\n{server.tail()}")
        time.sleep(POLL_SECONDS)


def _end(servers: list[LocalServer], file: Path, console: Console) -> None:
    ignore_signals()
    file.unlink(missing_ok=True)
    for server in servers:
        server.stop()
        with suppress(*GONE):
            console.print(f"{server.name:<8} ended")
