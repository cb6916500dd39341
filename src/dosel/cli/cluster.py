"""`dosel cluster …`: the scheduler and the workers that `DOSEL_CLUSTER` names."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dosel.settings import Settings

commands = typer.Typer(no_args_is_help=True, help="The scheduler and the workers of a Dask cluster.")

WARM = "dosel.training.on_cluster"
"""Imported by each worker when it starts, so that the first tasks need not wait for it."""

More = Annotated[list[str] | None, typer.Argument(help="More options for dask, after --.")]


@commands.command()
def scheduler(more: More = None) -> None:
    """Run the scheduler at the port of DOSEL_CLUSTER, on all addresses of this machine."""
    from dosel.settings import Settings

    settings = Settings.load()
    protocol, _, place = settings.cluster.partition("://")
    port = place.rpartition(":")[2]
    _become_dask(settings, ("scheduler", "--protocol", protocol, "--port", port, *(more or ())))


@commands.command()
def worker(more: More = None) -> None:
    """Run a worker with one thread for the scheduler at DOSEL_CLUSTER."""
    from dosel.settings import Settings

    settings = Settings.load()
    _become_dask(settings, ("worker", settings.cluster, "--nthreads", "1", "--preload", WARM, *(more or ())))


def _become_dask(settings: "Settings", arguments: Sequence[str]) -> None:
    from dosel.cluster.security import member_environment

    environment = os.environ | member_environment(settings)
    os.execve(sys.executable, (sys.executable, "-m", "dask", *arguments), environment)
