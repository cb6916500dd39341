"""Commands for a use case, its batches and its training."""

from dataclasses import asdict
from json import dumps
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from dosel.cli import common
from dosel.errors import WarehouseError
from dosel.usecases import ALL, DEFAULT, REFUSED, named

if TYPE_CHECKING:
    from dosel.pipeline import Pipeline
    from dosel.warehouse.batches import BatchStore

commands = typer.Typer()


@commands.command("use-cases")
def use_cases() -> None:
    """List the use cases."""
    for use_case in ALL:
        mark = "  (default)" if use_case is DEFAULT else ""
        Console().print(f"{use_case.name:<14} {use_case.summary}{mark}", highlight=False)


@commands.command()
def check() -> None:
    """Check every declaration, and compare it with its tables; exits 1 if a file is refused or a table differs."""
    settings = common.load_settings()
    from dosel.db.comparison import compare_all

    problems = [str(file) for file in REFUSED]
    console = Console(soft_wrap=True, highlight=False)
    try:
        for comparison in compare_all(settings.warehouse_url, ALL):
            if comparison.differences:
                problems.append(str(comparison))
            elif added := comparison.added_names:
                console.print(f"{comparison.use_case.name}: will be added to its tables: {', '.join(added)}")
    except WarehouseError as error:
        console.print(f"the tables were not compared: {error}", markup=False)
    for problem in problems:
        console.print(problem, markup=False)
    console.print(f"use cases that run: {', '.join(use_case.name for use_case in ALL) or 'none'}")
    if DEFAULT is None:
        console.print("no use case is the default: POST /predict answers 503")
    if problems:
        raise typer.Exit(1)


@commands.command()
def pull(name: common.UseCaseName) -> None:
    """Store the source's new batches in the warehouse."""
    from dosel.terminal import Pulling

    console = Console()
    with Pulling(console) as pulling:
        pipeline = _pipeline(name)
        stored = pipeline.ingest(pipeline.source(), pulling.stored)
    console.print(f"{len(stored)} new batches, {sum(b.rows_clean for b in stored):,} rows kept", highlight=False)


@commands.command()
def batches(name: common.UseCaseName) -> None:
    """Show the batch ledger and compare it with the stored rows; exits 1 if they differ."""
    from dosel.terminal import ledger, refused_batches

    store = _batch_store(name)
    console = Console(soft_wrap=True)
    console.print(ledger(store.records()))
    if refusals := store.refusals():
        console.print(refused_batches(refusals))
    store.audit()


@commands.command()
def quarantine(
    name: common.UseCaseName,
    batch: Annotated[int | None, typer.Option(help="Id of one batch; by default the newest refused rows.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rows to show.")] = 50,
) -> None:
    """Show refused rows, with the reason and the received values."""
    from dosel.terminal import refused

    store = _batch_store(name)
    rows = store.quarantine(limit, batch)
    total = sum(record.rows_refused for record in store.records() if batch in (None, record.id))
    console = Console(soft_wrap=True)
    if rows:
        console.print(refused(rows))
    console.print(f"{len(rows):,} of {total:,} refused rows", highlight=False)


@commands.command()
def score(name: common.UseCaseName) -> None:
    """Score the version in Production on the labelled batches that came after its training."""
    scored = _pipeline(name).score()
    Console().print(f"{len(scored)} batches scored", highlight=False)


@commands.command()
def health(
    names: Annotated[list[str] | None, typer.Argument(help="Names of use cases; by default all.")] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON, as the API gives it.")] = False,
) -> None:
    """Show whether the versions in Production are still as good as the gate found; exits 1 if one is harmed."""
    from dosel.terminal import context_table, health_table

    found = {name: _pipeline(name).health() for name in names or [use_case.name for use_case in ALL]}
    if json:
        typer.echo(dumps({name: health and asdict(health) for name, health in found.items()}, default=str))
    else:
        console = Console(soft_wrap=True)
        for name, health in found.items():
            if health is None:
                console.print(f"{name}: nothing is in Production yet")
            else:
                console.print(health_table(health), context_table(health.context))
    if any(health is not None and health.state == "harmed" for health in found.values()):
        raise typer.Exit(1)


@commands.command()
def train(name: common.UseCaseName) -> None:
    """Train on the clean rows, register the models and send the best one to the gate."""
    from dosel.terminal import Searching

    # Before the training, since a missing key is an error.
    pipeline, actor = _pipeline(name), common.actor()
    console = Console()
    with Searching(console) as searching:
        run_id = pipeline.train(searching.scored)
        searching.say("registering and judging")
        outcome = pipeline.challenge(pipeline.register(run_id), actor)
    verdict = "in Production" if outcome.promoted else "not promoted"
    Console().print(f"version {outcome.version} {verdict}: {outcome.reason}")


@commands.command()
def reset(
    name: common.UseCaseName,
    drop: Annotated[bool, typer.Option("--drop", help="Drop the tables, too: the declaration has changed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Remove a use case's rows and batch ledger, after confirmation. Models and their history stay."""
    settings = common.load_settings()
    from dosel.db.engine import connect
    from dosel.warehouse import reset as resetting

    use_case, engine = named(name), connect(settings.warehouse_url)
    counts = resetting.held(engine, use_case)
    if not counts and not (drop and resetting.has_tables(engine, use_case)):
        Console().print(f"{name}: there is nothing to remove")
        return
    if not yes:
        what = ", ".join(f"{count:,} rows of {table}" for table, count in counts.items()) or "no rows"
        tables = f" and drop the tables of {name}" if drop else ""
        typer.confirm(f"{engine.url.render_as_string()}: remove {what}{tables}?", abort=True)
    removed = sum((resetting.drop if drop else resetting.clear)(engine, use_case).values())
    Console().print(f"{name}: {removed:,} rows removed; the next ingest stores its batches again")


def _pipeline(name: str) -> "Pipeline":
    settings = common.load_settings()
    from dosel.pipeline import Pipeline

    return Pipeline(named(name), settings)


def _batch_store(name: str) -> "BatchStore":
    settings = common.load_settings()
    from dosel.db.engine import connect
    from dosel.warehouse.batches import BatchStore

    return BatchStore(connect(settings.warehouse_url), named(name))
