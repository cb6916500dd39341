"""Commands for the promotion ledger, promotions and rollbacks."""

from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from json import dumps
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from dosel.actors import readable
from dosel.cli import common, output
from dosel.cli.common import ModelName
from dosel.usecases import ALL, adapted, of_model

if TYPE_CHECKING:
    from dosel.registry.ledger import Promotion
    from dosel.registry.registry import Registry

commands = typer.Typer()
SomeModel = Annotated[
    str | None,
    typer.Argument(help="One model or its use case; all if left out.", autocompletion=common.model_names),
]


class CardFormat(StrEnum):
    """Formats of a model card."""

    md = "md"
    json = "json"
    cyclonedx = "cyclonedx"


VersionArgument = Annotated[int, typer.Argument(help="The version's number.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]


@commands.command()
def history(
    name: ModelName,
    at: Annotated[
        str | None, typer.Option(help="Only entries up to this time, such as 2026-11-21T03:00Z or now.")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="As CSV, with all columns of the ledger.")] = False,
    json: output.AsJson = False,
) -> None:
    """Show the promotion ledger: which version was in Production when, by whom and why."""
    from dosel.registry.export import as_csv, moment
    from dosel.registry.looks import holdout

    model, ledger = common.promotion_ledger(name)
    try:
        until = moment(at) if at else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    entries = ledger.history(model, until)
    if csv:
        output.write(as_csv(entries))
        return
    titles = ("#", "since (UTC)", "version", "by", "why")
    output.show(
        [{name: value for name, value in (vars(e) | vars(e.evidence)).items() if name != "evidence"} for e in entries],
        ("sequence", "at", "from_version", "to_version", "kind", "actor", "reason", "to_run", "manifest_digest"),
        lambda: (output.plain_table(titles, map(_in_cells, entries), least=("by",)),),
        as_json=json,
        empty=f"no version of {model} was in Production" + (f" at {at}" if at else " yet"),
    )
    for note in ledger.notes(model) if entries else ():
        if until is None or note.at <= until:
            output.note(f"{note.at:%Y-%m-%d %H:%M:%S}  after #{note.sequence}: {note.text}")
    if until is None:
        output.note(holdout(of_model(name), ledger.looks(model)).describe())


@commands.command()
def card(
    name: ModelName,
    version: Annotated[
        int | None, typer.Argument(help="The version's number; by default the one in Production.")
    ] = None,
    format: Annotated[CardFormat, typer.Option(help="Markdown, JSON, or a CycloneDX 1.6 ML-BOM.")] = CardFormat.md,
) -> None:
    """Print a version's model card: intended use, figures with intervals, limits and lineage."""
    model, registry = _registry(name)
    from dosel.errors import ModelNotFound
    from dosel.registry.card_formats import as_cyclonedx, as_json, as_markdown

    number = version or registry.production_number(model)
    if number is None:
        raise ModelNotFound(f"nothing is in Production of {model}; name a version: dosel card {model} 1")
    found = registry.card(of_model(name), registry.version(model, number))
    if format is CardFormat.md:
        output.write(as_markdown(found))
        return
    document = as_json(found) if format is CardFormat.json else as_cyclonedx(found)
    output.write(dumps(document, indent=2) + "\n")


@commands.command()
def promote(name: ModelName, version: VersionArgument, reason: Reason) -> None:
    """Put a version into Production without the gate. Its files must match its manifest.

    If its use case declares that more people must agree, each of them runs this command, with a key of their own.
    """
    from dosel.errors import ApprovalsMissing
    from dosel.monitor import shadowing

    model, registry = _registry(name)
    use_case = adapted(of_model(name), common.load_settings())
    with common.logged():
        try:
            found, engine = registry.version(model, version), registry.ledger.engine
            _print_change(shadowing.promote(use_case, registry, engine, found, common.actor(), reason, common.holder()))
        except ApprovalsMissing as waiting:
            output.line(str(waiting))


@commands.command()
def approvals(
    name: SomeModel = None,
    json: output.AsJson = False,
) -> None:
    """Show the promotions that wait for more people; `dosel promote` with the same version agrees."""
    from dosel.db.engine import connect
    from dosel.registry.approvals import Approvals

    settings = common.load_settings()
    book = Approvals(connect(settings.warehouse_url), settings.promote_key_names)
    waiting = []
    for model in [of_model(name).model_name] if name else [use_case.model_name for use_case in ALL]:
        last = common.promotion_ledger(model)[1].last(model)
        for request in book.open(model, last.sequence if last else 0):
            subject = request.subject
            waiting.append(
                {
                    "model": model,
                    "version": subject.version,
                    "request": request.number,
                    "people": request.people,
                    "agreed": request.holders(book.names),
                    "expires_at": request.expires_at,
                    "actor": request.actor,
                    "reason": request.reason,
                    "manifest_digest": subject.manifest_digest,
                }
            )
    titles = ("model", "version", "agreed", "of", "until (UTC)", "asked by", "why")
    output.show(
        waiting,
        ("model", "version", "request", "people", "agreed", "expires_at", "actor", "reason", "manifest_digest"),
        lambda: (output.plain_table(titles, map(_request_cells, waiting), least=("asked by", "of")),),
        as_json=json,
        empty="no promotion waits for approvals",
    )


@commands.command()
def rollback(
    name: ModelName,
    to: Annotated[
        int | None, typer.Option(help="A version that was in Production; by default the previous one.")
    ] = None,
    reason: Reason = "rolled back by hand",
) -> None:
    """Put the previous version back into Production."""
    model, registry = _registry(name)
    with common.logged():
        _print_change(registry.roll_back(model, common.actor(), reason, to))


@commands.command()
def reconcile(name: SomeModel = None, json: output.AsJson = False) -> None:
    """Set MLflow's aliases and stage to the ledger; exits 1 if MLflow and the ledger differed."""
    records: list[dict[str, Any]] = []
    for model in [name] if name else [use_case.model_name for use_case in ALL]:
        found, registry = _registry(model)
        projection = registry.reconcile(found)
        number = projection.version.version if projection.version else None
        records.append({"model": found, "version": number, "notes": list(projection.notes)})

    def table() -> Iterator[str]:
        for record in records:
            yield from (f"[yellow]![/] {escape(note)}" for note in record["notes"])
            now = f"version {record['version']}" if record["version"] else "nothing"
            yield f"{record['model']}: {now} is in Production"

    output.show(records, ("model", "version", "notes"), table, as_json=json)
    if any(record["notes"] for record in records):
        raise typer.Exit(1)


@commands.command()
def vouch(name: ModelName, version: VersionArgument, reason: Reason) -> None:
    """Record the manifest of a version that dosel did not register, from its files as they are now."""
    model, registry = _registry(name)
    manifest = registry.record_manifest(registry.version(model, version))
    registry.ledger.note(model, f"{common.actor()} vouched for the files of version {version}: {reason}")
    digest = output.short(manifest.digest)
    Console().print(f"{model} version {version}: {len(manifest.files)} files, manifest {digest}", soft_wrap=True)


@commands.command()
def gc(
    days: Annotated[int, typer.Option(min=0, help="Keep the runs of this many days, too.")] = 30,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete; without this option the command only lists.")
    ] = False,
    json: output.AsJson = False,
) -> None:
    """List runs and artifacts that no registered version needs, and delete them if --delete is given."""
    settings = common.load_settings()
    from dosel.registry.artifact_roots import artifact_roots
    from dosel.registry.gc import collect

    _, registry = _registry(ALL[0].model_name)
    with common.logged():
        experiments = [use_case.experiment for use_case in ALL]
        found = collect(registry, experiments, artifact_roots(settings), days, delete)
    record = {"deleted": delete} | asdict(found)

    def table() -> Iterator[str]:
        done = "deleted" if delete else "would be deleted (delete them with --delete)"
        waiting = f"; {found.waiting} more folders can be deleted six hours after their first listing" * bool(
            found.waiting
        )
        yield (
            f"{found.runs} runs, {found.models} models and {found.orphans} folders without a run {done}; "
            f"{found.kept} runs stay{waiting}"
        )

    output.show([record], tuple(record), table, as_json=json)


def _request_cells(request: dict[str, Any]) -> tuple[str, ...]:
    until = f"{request['expires_at']:%Y-%m-%d %H:%M}"
    version, people, agreed = str(request["version"]), str(request["people"]), ", ".join(request["agreed"]) or "nobody"
    return request["model"], version, agreed, people, until, readable(request["actor"]), request["reason"]


def _in_cells(entry: "Promotion") -> tuple[str, ...]:
    moved = f"{entry.from_version or '–'} → {entry.to_version}"
    return str(entry.sequence), f"{entry.at:%Y-%m-%d %H:%M:%S}", moved, readable(entry.actor), entry.reason


def _registry(name: str) -> "tuple[str, Registry]":
    """The registered model's name, and its registry."""
    settings = common.load_settings()
    from dosel.pipeline import bound_mlflow_requests
    from dosel.registry.registry import Registry

    bound_mlflow_requests()
    return of_model(name).model_name, Registry.opened(settings)


def _print_change(entry: "Promotion") -> None:
    before = f"version {entry.from_version}" if entry.from_version else "nothing"
    Console().print(
        f"{entry.model}: version {entry.to_version} is in Production, after {before} (entry {entry.sequence} of the "
        f"ledger, {entry.at:%Y-%m-%d %H:%M:%S} UTC)",
        highlight=False,
        soft_wrap=True,
    )
