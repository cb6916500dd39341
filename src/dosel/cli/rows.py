"""Commands on a use case and its rows."""

from typing import Annotated

import typer
from rich.console import Console

from dosel.cli import common
from dosel.usecases import ALL, DEFAULT, named

commands = typer.Typer()


@commands.command("use-cases")
def use_cases() -> None:
    """List what this installation serves."""
    for use_case in ALL:
        mark = "  (default)" if use_case is DEFAULT else ""
        Console().print(f"{use_case.name:<14} {use_case.summary}{mark}", highlight=False)


@commands.command()
def pull(name: common.UseCaseName) -> None:
    """Pull what is due from a use case's source into the warehouse."""
    settings = common.load_settings()
    from dosel.pipeline import Pipeline
    from dosel.terminal import Pulling

    console = Console()
    with Pulling(console) as pulling:
        pipeline = Pipeline(named(name), settings)
        stored = pipeline.ingest(pipeline.source(), pulling.stored)
    console.print(f"{len(stored)} new batches, {sum(b.rows_clean for b in stored):,} rows kept", highlight=False)


@commands.command()
def batches(name: common.UseCaseName) -> None:
    """Show a use case's batch ledger, and check it against the rows that are stored; exit code 1 if they differ."""
    settings = common.load_settings()
    from dosel.db.engine import connect
    from dosel.terminal import ledger
    from dosel.warehouse.batches import BatchStore

    store = BatchStore(connect(settings.warehouse_url), named(name))
    Console(soft_wrap=True).print(ledger(store.records()))
    store.audit()


@commands.command()
def quarantine(
    name: common.UseCaseName,
    batch: Annotated[int | None, typer.Option(help="Id of one batch; the newest refused rows if left out.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rows to show.")] = 50,
) -> None:
    """Show refused rows, with the reason and what was received."""
    settings = common.load_settings()
    from dosel.db.engine import connect
    from dosel.terminal import refused
    from dosel.warehouse.batches import BatchStore

    store = BatchStore(connect(settings.warehouse_url), named(name))
    rows = store.quarantine(limit, batch)
    total = sum(record.rows_refused for record in store.records() if batch in (None, record.id))
    console = Console(soft_wrap=True)
    if rows:
        console.print(refused(rows))
    console.print(f"{len(rows):,} of {total:,} refused rows", highlight=False)


@commands.command()
def train(name: common.UseCaseName) -> None:
    """Train on the clean rows, register the result and let the gate decide."""
    settings = common.load_settings()
    from dosel.pipeline import Pipeline
    from dosel.terminal import Searching

    pipeline = Pipeline(named(name), settings)
    console = Console()
    with Searching(console) as searching:
        run_id = pipeline.train(searching.scored)
        searching.say("registered, then judged by the gate")
        outcome = pipeline.challenge(pipeline.register(run_id), common.actor())
    verdict = "in Production" if outcome.promoted else "not promoted"
    Console().print(f"version {outcome.version} {verdict}: {outcome.reason}")


@commands.command()
def reset(
    name: common.UseCaseName,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a use case's rows and batch ledger, after asking; its models and their history stay."""
    settings = common.load_settings()
    from dosel.db.engine import connect
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
    Console().print(f"{name}: {removed:,} rows removed; the next ingest stores its batches again")
