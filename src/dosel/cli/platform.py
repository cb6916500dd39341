"""Commands that start, watch and stop the embedded platform."""

import os
import subprocess
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from dosel.cli import common

if TYPE_CHECKING:
    from dosel.embedded.up import Platform

commands = typer.Typer()


@commands.command()
def up(
    detach: Annotated[
        bool, typer.Option(help="Return when every use case answers; the services keep running.")
    ] = False,
) -> None:
    """Start the embedded platform and wait until every use case answers."""
    _platform().up(detach)


@commands.command()
def down() -> None:
    """Stop the embedded platform."""
    _platform().down()


@commands.command()
def status() -> None:
    """Show each service's state; exits 1 if one is not healthy."""
    if not _platform(as_started=True).status():
        raise typer.Exit(1)


@commands.command()
def logs(service: Annotated[str | None, typer.Argument(help="One service; by default all.")] = None) -> None:
    """Follow the services' logs until Ctrl-C."""
    files = _platform(as_started=True).logs(service)
    if not files:
        Console().print("there are no logs yet; start the services with `make up`")
        return
    try:
        subprocess.run(["tail", "-n", "20", "-F", *map(str, files)], check=False)
    except KeyboardInterrupt:
        return


@commands.command()
def forget() -> None:
    """Remove all data, models and logs of the embedded platform; it must not be running."""
    _platform().forget()


@commands.command()
def drill(
    shadow: Annotated[
        bool, typer.Option("--shadow", help="The new version proves itself on live rows before it answers anybody.")
    ] = False,
) -> None:
    """Run the platform on data that go bad, and show harm, message, retraining and recovery; some three minutes."""
    settings = common.load_settings()
    from dosel.embedded import drill

    drill.run(settings.home / "drill", Console(soft_wrap=True), shadow)


@commands.command()
def services(detach: Annotated[bool, typer.Option(help="Return at once; the servers keep running.")] = False) -> None:
    """Start a local MariaDB and MinIO, and print how to use them."""
    settings = common.load_settings()
    from dosel.embedded import services_command

    services_command.up(settings.home, dict(os.environ), Console(soft_wrap=True), detach)


@commands.command("services-down")
def services_down() -> None:
    """Stop the local MariaDB and MinIO; their data stays."""
    settings = common.load_settings()
    from dosel.embedded import services_command

    services_command.down(settings.home, Console())


def _platform(as_started: bool = False) -> "Platform":
    """The embedded platform, with the current settings or those of its last start."""
    settings = common.load_settings()
    from dosel.embedded.home import Home
    from dosel.embedded.up import Platform
    from dosel.settings import Settings

    if as_started and (last := Home(settings.home).last_start()):
        os.environ.update(last)
        settings = Settings.load()
    return Platform(settings, dict(os.environ), Console(soft_wrap=True))
