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
from rich.table import Table

from dosel.compose.commands import jobs
from dosel.embedded.services import ROOT
from dosel.errors import DoselError
from dosel.settings import Settings
from dosel.usecases import ALL, DEFAULT, named, of_model

if TYPE_CHECKING:
    from dosel.embedded.up import Platform
    from dosel.registry import Registry
    from dosel.warehouse import Promotion

cli = typer.Typer(no_args_is_help=True, add_completion=False, help="A model registry platform.")
cli.add_typer(jobs, name="compose")
ModelName = Annotated[str, typer.Argument(help="Name of the registered model, or of its use case.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
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


@cli.command()
def services(
    detach: Annotated[bool, typer.Option(help="Return at once; they stay.")] = False,
) -> None:
    """Start a MariaDB and a MinIO of our own, and tell how to use them."""
    settings = load_settings()
    from dosel.embedded import own_stores

    own_stores.up(settings.home, dict(os.environ), Console(soft_wrap=True), detach)


@cli.command("services-down")
def services_down() -> None:
    """End that MariaDB and MinIO; their data stay."""
    settings = load_settings()
    from dosel.embedded import own_stores

    own_stores.down(settings.home, Console())


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
    from dosel.terminal import Searching

    pipeline = Pipeline(named(name), settings)
    console = Console()
    with Searching(console) as searching:
        run_id = pipeline.train(searching.scored)
        searching.say("registered, then judged by the gate")
        outcome = pipeline.challenge(pipeline.register(run_id), _actor())
    verdict = "in Production" if outcome.promoted else "not promoted"
    Console().print(f"version {outcome.version} {verdict}: {outcome.reason}")


@cli.command()
def reset(
    name: UseCaseName,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a use case's rows and batch ledger, after asking; its models and their history stay."""
    settings = load_settings()
    from dosel.warehouse import connect
    from dosel.warehouse.reset import clear, held

    use_case, engine = named(name), connect(settings.warehouse_url)
    counts = held(engine, use_case)
    if not counts:
        Console().print(f"{name}: there is nothing to remove")
        return
    if not yes:
        what = ", ".join(f"{count:,} rows of {table}" for table, count in counts.items())
        typer.confirm(f"{engine.url.render_as_string()}: remove {what}?", abort=True)
    removed = sum(clear(engine, use_case).values())
    Console().print(f"{name}: {removed:,} rows removed; what its source gives from now on is stored anew")


@cli.command()
def history(
    name: ModelName,
    at: Annotated[str | None, typer.Option(help="Only up to this time, such as 2026-11-21T03:00Z.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="As CSV, with everything the ledger keeps.")] = False,
) -> None:
    """Show what was in Production when, by whom and why; the last line is what is there."""
    from dosel.registry.history import as_csv, moment

    model, registry = _registry(name)
    try:
        entries = registry.ledger.history(model, moment(at) if at else None)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if csv:
        typer.echo(as_csv(entries), nl=False)
        return
    if not entries:
        Console().print(f"nothing was in Production of {model}" + (f" at {at}" if at else " yet"), highlight=False)
        return
    table = Table(box=None, pad_edge=False)
    for title in ("#", "since (UTC)", "version", "by", "why"):
        table.add_column(title, no_wrap=title in ("#", "since (UTC)", "version"))
    for entry in entries:
        moved = f"{entry.from_version or '–'} → {entry.to_version}"
        table.add_row(
            str(entry.sequence), f"{entry.at:%Y-%m-%d %H:%M:%S}", moved, escape(entry.actor), escape(entry.reason)
        )
    Console(soft_wrap=False).print(table, highlight=False)
    for note in registry.ledger.notes(model):
        Console().print(f"{note.at:%Y-%m-%d %H:%M:%S}  after #{note.sequence}: {escape(note.text)}", style="yellow")


@cli.command()
def promote(
    name: ModelName, version: Annotated[int, typer.Argument(help="The version's number.")], reason: Reason
) -> None:
    """Put a version into Production by hand. The gate is not asked; its files must be those that were registered."""
    model, registry = _registry(name)
    with _logging():
        _tell_moved(registry.promote(registry.version(model, version), _actor(), reason))


@cli.command()
def rollback(
    name: ModelName,
    to: Annotated[int | None, typer.Option(help="A version that was in Production; left out: the one before.")] = None,
    reason: Reason = "rolled back by hand",
) -> None:
    """Put back what was in Production before."""
    model, registry = _registry(name)
    with _logging():
        _tell_moved(registry.roll_back(model, _actor(), reason, to))


@cli.command()
def reconcile(name: Annotated[str | None, typer.Argument(help="One model; all if left out.")] = None) -> None:
    """Bring MLflow's aliases and stage to what the ledger says; exit code 1 if something was found amiss."""
    amiss = False
    for model in [name] if name else [use_case.model_name for use_case in ALL]:
        found, registry = _registry(model)
        projection = registry.reconcile(found)
        for note in projection.notes:
            Console().print(f"[yellow]![/] {escape(note)}", highlight=False, soft_wrap=True)
        now = f"version {projection.version.version}" if projection.version else "nothing"
        Console().print(f"{found}: {now} is in Production", highlight=False)
        amiss = amiss or bool(projection.notes)
    if amiss:
        raise typer.Exit(1)


@cli.command()
def vouch(
    name: ModelName, version: Annotated[int, typer.Argument(help="The version's number.")], reason: Reason
) -> None:
    """Write the manifest of a version that dosel did not register, or before it kept manifests: its files as now."""
    model, registry = _registry(name)
    manifest = registry.vouch(registry.version(model, version))
    registry.ledger.note(model, f"{_actor()} vouched for the files of version {version}: {reason}")
    Console().print(
        f"{model} version {version}: {len(manifest.files)} files, manifest {manifest.digest}", soft_wrap=True
    )


@cli.command()
def gc(
    days: Annotated[int, typer.Option(min=0, help="Runs of the last so many days are kept, too.")] = 30,
    delete: Annotated[bool, typer.Option("--delete", help="Really delete; left out, it only says what.")] = False,
) -> None:
    """Delete runs and artifacts that neither the registry nor the ledger nor the last days name."""
    from dosel.registry.gc import collect

    _, registry = _registry(ALL[0].model_name)
    with _logging():
        found = collect(registry, [use_case.experiment for use_case in ALL], days, delete)
    done = "deleted" if delete else "would be deleted (--delete does it)"
    Console().print(
        f"{found.runs} runs, {found.models} models and {found.orphans} folders that belong to no run {done}; "
        f"{found.kept} runs are kept",
        highlight=False,
        soft_wrap=True,
    )


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


def _registry(name: str) -> "tuple[str, Registry]":
    """The registered model's name, and the registry it is in."""
    settings = load_settings()
    from dosel.pipeline import bound_mlflow_requests
    from dosel.registry import Registry

    bound_mlflow_requests()
    return of_model(name).model_name, Registry.opened(settings)


def _tell_moved(entry: "Promotion") -> None:
    before = f"version {entry.from_version}" if entry.from_version else "nothing"
    Console().print(
        f"{entry.model}: version {entry.to_version} is in Production, after {before} (entry {entry.sequence} of the "
        f"ledger, {entry.at:%Y-%m-%d %H:%M:%S} UTC)",
        highlight=False,
        soft_wrap=True,
    )


def _actor() -> str:
    return f"command line, {_user()}"


def _user() -> str:
    import getpass

    return getpass.getuser()


@contextmanager
def _logging() -> Iterator[None]:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("dosel").setLevel(logging.INFO)
    yield
