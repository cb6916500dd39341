"""The command that trains a version again."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from dosel.cli import common, output
from dosel.cli.common import ModelName
from dosel.usecases import of_model

if TYPE_CHECKING:
    from dosel.reproduction import Reproduction

commands = typer.Typer()


@commands.command()
def reproduce(
    name: ModelName,
    version: Annotated[int, typer.Argument(help="The version's number.")],
    here: Annotated[
        bool,
        typer.Option(
            "--here",
            help="Train with this installation's source code and libraries, not with those that the version keeps.",
        ),
    ] = False,
    json: output.AsJson = False,
) -> None:
    """Train a version again from the rows and source code that it keeps; exits 1 if the model or the rows differ."""
    settings = common.load_settings()
    from dosel.pipeline import Pipeline
    from dosel.reproduction import reproduce

    use_case = of_model(name)
    pipeline = Pipeline(use_case, settings)
    found = reproduce(use_case, pipeline.registry, pipeline.batches, version, settings, here, output.note)
    if json:
        output.write_json([vars(found) | {"reproduced": found.reproduced}])
    else:
        _print(found)
    if not found.reproduced:
        raise typer.Exit(1)


def _print(found: "Reproduction") -> None:
    console = output.console()
    is_equal = found.found == found.expected
    console.print(
        f"{escape(found.model)} version {found.version} ({escape(found.family)}): the model that was trained now "
        + ("[green bold]equals[/]" if is_equal else "[red bold]differs from[/]")
        + " the registered one"
    )
    console.print(f"rows: {escape(found.rows)}")
    console.print(f"source: {escape(found.source)}, run by {escape(found.python)}")
    registered = "" if is_equal else f"; registered: {output.short(found.expected)}"
    console.print(f"model: {output.short(found.found)}{registered}")
    for place, difference in enumerate(found.differences):
        console.print(f"{'first difference' if place == 0 else 'then'}: {escape(str(difference))}")
