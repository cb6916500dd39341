"""Commands that start, watch and stop the embedded platform."""

import os
import subprocess
import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from dosel.cli import common, output

if TYPE_CHECKING:
    from dosel.embedded.up import Platform
    from dosel.settings import Settings

commands = typer.Typer()

OPENED = ("page", "api", "mlflow", "airflow", "minio")


def _named(incomplete: str) -> list[str]:
    return [name for name in OPENED if name.startswith(incomplete)]


@commands.command()
def up(
    detach: Annotated[
        bool, typer.Option(help="Return when every use case answers; the services keep running.")
    ] = False,
) -> None:
    """Start the embedded platform and wait until every use case answers.

    Exits 1 if the pipeline of one has failed; the others go on.
    """
    if _platform().up(detach):
        raise typer.Exit(1)


@commands.command()
def down() -> None:
    """Stop the embedded platform."""
    _platform().down()


@commands.command()
def status(json: output.AsJson = False) -> None:
    """Show each service's state; exits 1 if one is not healthy."""
    platform = _platform(as_started=True)
    states = platform.states()
    titles = ("service", "state", "address", "log")
    output.show(
        [state._asdict() for state in states],
        titles,
        lambda: (output.plain_table(titles, (state[:4] for state in states), folding=titles[1:]),),
        as_json=json,
        empty="every service runs on another machine",
    )
    if not json:
        for line in platform.in_production():
            output.note(line)
    if not all(state.healthy for state in states):
        raise typer.Exit(1)


@commands.command("open")
def open_(
    name: Annotated[
        str | None, typer.Argument(help="page, api, mlflow, airflow or minio; by default all.", autocompletion=_named)
    ] = None,
    json: output.AsJson = False,
) -> None:
    """Print the services' addresses; with a name, open it in the browser, too, if there is a display."""
    addresses = _addresses(_settings(as_started=True))
    if name is not None and name not in addresses:
        raise typer.BadParameter(f"no address {name!r}; there are: {', '.join(addresses)}")
    chosen = {name: addresses[name]} if name else addresses
    output.show(
        [{"service": service, "address": address} for service, address in chosen.items()],
        ("service", "address"),
        lambda: (output.plain_table(("service", "address"), chosen.items()),),
        as_json=json,
    )
    if name and output.has_display():
        webbrowser.open(addresses[name])


def _addresses(settings: "Settings") -> dict[str, str]:
    """The addresses for people, by service; MinIO's only where one is used."""
    from dosel.addresses import in_mlflow

    found = {
        "page": settings.page_url,
        "api": settings.docs_url,
        "mlflow": in_mlflow(settings),
        "airflow": settings.airflow_url,
    }
    return found | ({"minio": settings.s3_endpoint} if settings.s3_endpoint else {})


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
    """Start a local MySQL or MariaDB and a MinIO, and print how to use them."""
    settings = common.load_settings()
    from dosel.embedded import storage_services

    storage_services.up(settings.home, dict(os.environ), Console(soft_wrap=True), detach)


@commands.command("services-down")
def services_down() -> None:
    """Stop the local database server and MinIO; their data stays."""
    settings = common.load_settings()
    from dosel.embedded import storage_services

    storage_services.down(settings.home, Console())


def _platform(as_started: bool = False) -> "Platform":
    """The embedded platform, with the current settings or those of its last start."""
    settings = _settings(as_started)
    from dosel.embedded.up import Platform

    return Platform(settings, dict(os.environ), Console(soft_wrap=True))


def _settings(as_started: bool) -> "Settings":
    """The current settings, or those of the platform's last start."""
    settings = common.load_settings()
    from dosel.embedded.home import Home
    from dosel.settings import Settings

    if as_started and (last := Home(settings.home).last_start()):
        os.environ.update(last)
        settings = Settings.load()
    return settings
