"""`dosel …`, for a person at a terminal."""

import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from dosel.compose.commands import jobs
from dosel.embedded.services import ROOT
from dosel.errors import DoselError
from dosel.settings import Settings
from dosel.usecases import ALL, DEFAULT, named

if TYPE_CHECKING:
    from dosel.embedded.up import Platform

cli = typer.Typer(no_args_is_help=True, add_completion=False, help="A model registry platform.")
cli.add_typer(jobs, name="compose")
UseCaseName = Annotated[str, typer.Argument(help="Name of the use case.")]


def main() -> None:
    """The entry point: every error that dosel raises on purpose is one message and exit code 1."""
    try:
        cli()
    except DoselError as error:
        Console(stderr=True).print(f"[red bold]dosel:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None


@cli.command()
def up(
    detach: Annotated[bool, typer.Option(help="Return after the first prediction; the services stay.")] = False,
) -> None:
    """Start the embedded platform and wait for its first prediction."""
    _platform().up(detach)


@cli.command()
def down() -> None:
    """End everything the embedded platform runs."""
    _platform().down()


@cli.command()
def status() -> None:
    """Show each service's state; exit code 1 if one is not well."""
    if not _platform(as_started=True).status():
        raise typer.Exit(1)


@cli.command()
def logs(service: Annotated[str | None, typer.Argument(help="One service; all if left out.")] = None) -> None:
    """Follow the services' logs until Ctrl-C."""
    files = _platform(as_started=True).logs(service)
    if not files:
        Console().print("there are no logs yet: `make up` starts the services")
        return
    try:
        subprocess.run(["tail", "-n", "20", "-F", *map(str, files)], check=False)
    except KeyboardInterrupt:
        return


@cli.command()
def forget() -> None:
    """Remove all data, models and logs of the embedded platform, which must not be running."""
    _platform().forget()


@cli.command("use-cases")
def use_cases() -> None:
    """List what this installation serves."""
    for use_case in ALL:
        mark = "  (default)" if use_case is DEFAULT else ""
        Console().print(f"{use_case.name:<14} {use_case.summary}{mark}", highlight=False)


@cli.command()
def pull(name: UseCaseName) -> None:
    """Pull what is due from a use case's source into the warehouse."""
    settings = load_settings()
    from dosel.pipeline import Pipeline
    from dosel.terminal import Pulling

    console = Console()
    with Pulling(console) as pulling:
        pipeline = Pipeline(named(name), settings)
        stored = pipeline.ingest(pipeline.source(), pulling.stored)
    console.print(f"{len(stored)} new batches, {sum(b.rows_clean for b in stored):,} rows kept", highlight=False)


@cli.command()
def batches(name: UseCaseName) -> None:
    """Show a use case's batch ledger, and check it against the rows that are stored; exit code 1 if they differ."""
    settings = load_settings()
    from dosel.terminal import ledger
    from dosel.warehouse import BatchStore, connect

    store = BatchStore(connect(settings.warehouse_url), named(name))
    Console(soft_wrap=True).print(ledger(store.records()))
    store.audit()


@cli.command()
def quarantine(
    name: UseCaseName,
    batch: Annotated[int | None, typer.Option(help="Id of one batch; the newest refused rows if left out.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rows to show.")] = 50,
) -> None:
    """Show refused rows, with the reason and what was received."""
    settings = load_settings()
    from dosel.terminal import refused
    from dosel.warehouse import BatchStore, connect

    store = BatchStore(connect(settings.warehouse_url), named(name))
    rows = store.quarantine(limit, batch)
    total = sum(record.rows_refused for record in store.records() if batch in (None, record.id))
    console = Console(soft_wrap=True)
    if rows:
        console.print(refused(rows))
    console.print(f"{len(rows):,} of {total:,} refused rows", highlight=False)


@cli.command()
def train(name: UseCaseName) -> None:
    """Train on the clean rows, register the result and let the gate decide."""
    settings = load_settings()
    from dosel.pipeline import Pipeline

    with _logging():
        pipeline = Pipeline(named(name), settings)
        outcome = pipeline.challenge(pipeline.register(pipeline.train()), f"command line, {_user()}")
    verdict = "in Production" if outcome.promoted else "not promoted"
    Console().print(f"version {outcome.version} {verdict}: {outcome.reason}")


def load_settings() -> Settings:
    """Settings from the environment and, where that is silent, from the project's `.env`."""
    from dotenv import dotenv_values

    for key, value in dotenv_values(ROOT / ".env").items():
        if value is not None:
            os.environ.setdefault(key, value)
    os.environ.setdefault("DOSEL_HOME", str(ROOT / ".dosel"))
    # Before anything imports mlflow, which would note this machine in the user's home.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    return Settings.load()


def _platform(as_started: bool = False) -> "Platform":
    """The embedded platform, with the settings of now or with those it was last started with."""
    settings = load_settings()
    from dosel.embedded.home import Home
    from dosel.embedded.up import Platform

    if as_started and (last := Home(settings.home).last_start()):
        os.environ.update(last)
        settings = Settings.load()
    return Platform(settings, dict(os.environ), Console(soft_wrap=True))


def _user() -> str:
    import getpass

    return getpass.getuser()


@contextmanager
def _logging() -> Iterator[None]:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("dosel").setLevel(logging.INFO)
    yield
