"""`make services`: a MariaDB and a MinIO to try the platform with, and how to use them."""

import shlex
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from rich.console import Console

from dosel.embedded.guard import guarded
from dosel.embedded.processes import GONE, Processes, deaf_to_signals, end_on_signals
from dosel.embedded.stores import STORES, Store, write_private
from dosel.errors import StartupError

POLL_SECONDS = 0.5
ENVIRONMENT = "environment"
"""The file of the variables to set; it is there as long as the stores are meant to run."""


def up(home: Path, caller: Mapping[str, str], console: Console, detach: bool) -> None:
    """Starts both and tells how to use them; attached, it returns when they were ended, and ends them if it is.

    Raises:
        ProgramMissing: one of them is not on this machine; none is started then.
        StartupError: one did not come up, or ended by itself; the other is ended, too.
    """
    place = _folder(home)
    stores = [kind(place, caller) for kind in STORES]
    mine = [store for store in stores if not store.running]
    with ExitStack() as ending:
        if mine and not detach:
            ending.enter_context(guarded(place))
        try:
            end_on_signals()
            for store in stores:
                store.start()
                console.print(f"[green]✓[/] {store.title:<8} {store.address}", highlight=False)
            _tell(stores, place / ENVIRONMENT, console)
            if mine and not detach:
                console.print("\nCtrl-C ends them, as `make services-down` from another terminal does.")
                _watch(stores, place / ENVIRONMENT)
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
    """Apart from the platform's own processes, so that `make down` leaves the stores running."""
    return home / "services"


def _tell(stores: list[Store], file: Path, console: Console) -> None:
    lines = [f"export {name}={shlex.quote(value)}" for store in stores for name, value in store.settings.items()]
    write_private(file, "\n".join(lines) + "\n")
    console.print("\nThe platform uses them where this is set, which one line does:\n", highlight=False)
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False)
    console.print(f"\n  . {shlex.quote(str(file))} && make up", highlight=False, markup=False)


def _watch(stores: list[Store], file: Path) -> None:
    """Returns once somebody else ended them; one that died by itself is an error."""
    while file.exists():
        for store in stores:
            if not store.running and file.exists():
                raise StartupError(f"{store.title} has ended.\n{store.tail()}")
        time.sleep(POLL_SECONDS)


def _end(stores: list[Store], file: Path, console: Console) -> None:
    deaf_to_signals()
    file.unlink(missing_ok=True)
    for store in stores:
        store.stop()
        with suppress(*GONE):
            console.print(f"{store.name:<8} ended")
