"""Commands for a use case, its batches and its training."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from dosel.cli import common, output
from dosel.errors import WarehouseError
from dosel.usecases import ALL, DEFAULT, REFUSED, SURPLUS, chosen, named

if TYPE_CHECKING:
    from dosel.monitor.health import Health
    from dosel.pipeline import Pipeline
    from dosel.warehouse.batch_ledger import BatchLedger

commands = typer.Typer()

BATCH = ("outcome", "id", "stream", "epoch", "number", "source", "received_at")
"""What is shown of a batch before its counts."""
COUNTS = ("rows_received", "rows_clean", "rows_refused", "rows_duplicate", "digest", "reason")
FINDING = ("use_case", "version", "metric", "promised", "live", "low", "high", "labels", "held_out", "state")


@commands.command("use-cases")
def use_cases(json: output.AsJson = False) -> None:
    """List the use cases."""
    records = [
        {
            "name": use_case.name,
            "summary": use_case.summary,
            "model": use_case.model_name,
            "families": [family.name for family in use_case.families],
            "default": use_case is DEFAULT,
        }
        for use_case in ALL
    ]
    rows = ((u.name + (" (default)" if u is DEFAULT else ""), u.model_name, u.summary) for u in ALL)
    output.show(
        records,
        ("name", "summary", "model", "families", "default"),
        lambda: (output.plain_table(("use case", "model", "what it predicts"), rows),),
        as_json=json,
        empty="no use case can run; `dosel check` says why",
    )


@commands.command()
def check(json: output.AsJson = False) -> None:
    """Check every declaration, and compare it with its tables; exits 1 if a file is refused or a table differs."""
    settings = common.load_settings()
    from dosel.db.comparison import compare_all

    problems = [str(file) for file in REFUSED]
    notes = []
    try:
        for comparison in compare_all(settings.warehouse_url, ALL):
            if comparison.differences:
                problems.append(str(comparison))
            elif added := comparison.added_names:
                notes.append(f"{comparison.use_case.name}: will be added to its tables: {', '.join(added)}")
    except WarehouseError as error:
        notes.append(f"the tables were not compared: {error}")
    default = [] if DEFAULT else ["no use case is the default: POST /predict answers 503"]
    names = [use_case.name for use_case in ALL]
    if json:
        output.write_json([{"problems": problems, "notes": notes + default, "use_cases": names}])
    else:
        lines = (*notes, *problems, f"use cases that run: {', '.join(names) or 'none'}", *default)
        output.write("".join(f"{line}\n" for line in lines))
    if problems:
        raise typer.Exit(1)


@commands.command()
def pull(name: common.UseCaseName) -> None:
    """Store the source's new batches in the data store."""
    from dosel.terminal import Pulling

    console = Console()
    with Pulling(console) as pulling:
        pipeline = _pipeline(name)
        stored = pipeline.ingest(pipeline.source(), pulling.stored)
    console.print(f"{len(stored)} new batches, {sum(b.rows_clean for b in stored):,} rows kept", highlight=False)


@commands.command()
def batches(name: common.UseCaseName, json: output.AsJson = False) -> None:
    """Show the batch ledger and compare it with the stored rows; exits 1 if they differ."""
    from dosel.terminal import ledger, refused_batches

    store = _batch_ledger(name)
    stored, refusals = store.records(), store.refusals()
    records = [{"outcome": "stored"} | vars(record) for record in stored]
    records += [{"outcome": "refused as a whole"} | vars(refusal) for refusal in refusals]
    output.show(
        records,
        (*BATCH, *COUNTS),
        lambda: (ledger(stored), refused_batches(refusals)) if refusals else (ledger(stored),),
        as_json=json,
        empty=f"{name}: no batch was received yet",
    )
    store.audit()


@commands.command()
def quarantine(
    name: common.UseCaseName,
    batch: Annotated[int | None, typer.Option(help="Id of one batch; by default the newest refused rows.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of rows to show.")] = 50,
    json: output.AsJson = False,
) -> None:
    """Show refused rows, with the reason and the received values.

    The table's `row` counts from 1, without the header; `row_no` in JSON and tab-separated values counts from 0.
    """
    from dosel.terminal import refused

    store = _batch_ledger(name)
    rows = store.quarantine(limit, batch)
    total = sum(record.rows_refused for record in store.records() if batch in (None, record.id))
    output.show(
        [
            {"batch_id": r.batch_id, "row_no": r.row_no, "reason": r.reason, **r.values, SURPLUS: r.surplus}
            for r in rows
        ],
        ("batch_id", "row_no", "reason", *named(name).columns, SURPLUS),
        lambda: (refused(rows),),
        as_json=json,
    )
    counting = "row counts from 1, without the header" if output.is_terminal() and not json else "row_no counts from 0"
    output.note(f"{len(rows):,} of {total:,} refused rows; {counting}")


@commands.command()
def score(name: common.UseCaseName) -> None:
    """Score the version in Production on the labelled batches that came after its training."""
    scored = _pipeline(name).score()
    Console().print(f"{len(scored)} batches scored", highlight=False)


@commands.command()
def health(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names of use cases; by default all.", autocompletion=common.use_case_names),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON, one object a line for each use case.")] = False,
) -> None:
    """Show whether the versions in Production are still as good as the gate found; exits 1 if one is proven worse."""
    from dosel.terminal import context_table, health_table

    served = [use_case.name for use_case in chosen(common.load_settings().use_cases)]
    found = {name: _pipeline(name).health() for name in names or served}
    in_production = [health for health in found.values() if health is not None]
    if json:
        output.write_json(one or {"use_case": name, "state": None} for name, one in found.items())
    else:
        output.show(
            [record for health in in_production for record in _findings(health)],
            FINDING,
            lambda: (part for h in in_production for part in (health_table(h), context_table(h.context))),
            as_json=False,
        )
        for name in found.keys() - {health.use_case for health in in_production}:
            output.note(f"{name}: nothing is in Production yet")
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
    output.line(f"version {outcome.version} {verdict}: {outcome.reason}")


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


def _findings(health: "Health") -> Iterator[dict[str, Any]]:
    for finding in health.findings:
        live, promised = finding.live, finding.promised
        yield {
            "use_case": health.use_case,
            "version": health.version,
            "metric": finding.name,
            "promised": promised.rate if promised and promised.total else None,
            "live": live.rate if live.total else None,
            "low": finding.low if live.total else None,
            "high": finding.high if live.total else None,
            "labels": live.total,
            "held_out": promised.total if promised else None,
            "state": finding.state,
        }


def _pipeline(name: str) -> "Pipeline":
    settings = common.load_settings()
    from dosel.pipeline import Pipeline

    return Pipeline(named(name), settings)


def _batch_ledger(name: str) -> "BatchLedger":
    settings = common.load_settings()
    from dosel.db.engine import connect
    from dosel.warehouse.batch_ledger import BatchLedger

    return BatchLedger(connect(settings.warehouse_url), named(name))
