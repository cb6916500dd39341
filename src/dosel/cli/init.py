"""The command that proposes a declaration from a CSV."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dosel.cli import output
from dosel.errors import SourceError
from dosel.usecases import ALL
from dosel.usecases.reading import problems_of

if TYPE_CHECKING:
    from dosel.cli.drafting.draft import Draft

commands = typer.Typer()


@commands.command()
def init(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A CSV with a header.")],
    target: Annotated[str, typer.Option(help="The column to predict; by default it is guessed.")] = "",
    name: Annotated[str, typer.Option(help="Name of the use case; by default made of the file's name.")] = "",
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; by default the one that dosel reads.")
    ] = None,
) -> None:
    """Propose a use case from a CSV, write its file, check it, and say what to look at."""
    # These import pyarrow, which takes longer than `dosel --help`.
    from dosel.cli.drafting.columns import identifier
    from dosel.cli.drafting.draft import draft
    from dosel.cli.drafting.profile import read
    from dosel.cli.drafting.source import place_of, source

    name = name or identifier(file.stem)
    place = place_of(name)
    # Airflow reads declarations by itself: it would train on guesses that nobody has looked at.
    aside = out is None and _platform_runs()
    out = out or (Path(place.name) if aside else place)
    if aside and out.resolve() == place.resolve():
        raise typer.BadParameter(
            f"the platform runs, and would train on the guesses in {out}: name another file with -o"
        )
    if out.exists():
        raise typer.BadParameter(f"{out} is there already; remove it, or name another file with -o")
    proposed = draft(read(file), target)
    text = source(proposed, name)
    try:
        with out.open("x", encoding="utf-8") as written:
            written.write(text)
    except OSError as error:
        raise SourceError(f"{out} cannot be written: {error.strerror}") from None
    problems = problems_of(out, ALL)
    output.write(
        "".join(
            f"{output.visible(line)}\n"
            for line in (*_said(proposed, out), *problems, *_next(name, out, place, problems, aside))
        )
    )
    if problems:
        raise typer.Exit(1)


def _said(proposed: "Draft", out: Path) -> Iterator[str]:
    """What was proposed, and what a person should look at."""
    profile, target = proposed.profile, proposed.target
    read = "" if profile.is_whole else "the first "
    yield f"{out}: proposed from {read}{profile.rows:,} rows, in {profile.encoding}, separated by {profile.delimiter}"
    how = " (guessed: name another column with --target)" if proposed.target_is_guessed else ""
    classes = ", ".join(f"{label} ({rows:,} rows)" for label, rows in proposed.classes.items())
    yield f"  predicts {target.name}{how}: {classes}"
    yield f"  from {len(proposed.features)} columns: {', '.join(feature.name for feature in proposed.features)}"
    for column, reason in proposed.left_out.items():
        yield f"  leaves out {column}: {reason}"
    yield "Look at:"
    yield "  each line with `# guessed` in the file: titles, units, bounds, families, gate"
    for feature in proposed.features:
        if rows := proposed.lacking[feature.name]:
            yield f"  {feature.name}: {rows:,} of {profile.rows:,} rows have no value, so it is optional"
    if proposed.without_target:
        yield f"  {target.name}: {proposed.without_target:,} rows have none; ingest refuses them"
    label, rows = proposed.smallest_class
    if proposed.has_rare_class:
        yield f"  the class {label} has {rows} rows: a model hardly learns it, and the holdout may have none of them"
    if proposed.is_unbalanced:
        yield "  most rows are of one class, so the gate compares the balanced accuracy"


def _platform_runs() -> bool:
    """Whether the embedded platform runs, whose Airflow reads the declarations."""
    from dosel.embedded.processes import Processes
    from dosel.settings import Settings

    processes = Processes(Settings.load().home)
    return any(processes.leader(name) is not None for name in processes.started())


def _next(name: str, out: Path, place: Path, problems: list[str], aside: bool) -> Iterator[str]:
    if aside:
        yield "The platform runs, and would train on the guesses at once. So this file is not where dosel reads it."
    if problems:
        yield "The file has the problems above: correct them, then run `dosel check`."
    elif out.resolve() == place.resolve():
        yield "`dosel check` accepts it. Next: make up (if the platform runs, make down first)"
        yield f"  or, without the platform: dosel pull {name} and dosel train {name}"
    else:
        yield f"`dosel check` would accept it. Next: make down if the platform runs, move the file to {place},"
        yield "  and make up"
