"""`dosel …`, for a person at a terminal."""

import os
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from dosel import __version__
from dosel.cli import (
    answers,
    cluster,
    compare,
    events,
    init,
    ledgers,
    models,
    platform,
    predict,
    reproduce,
    rows,
    shadow,
    versions,
)
from dosel.cli.output import visible
from dosel.compose.commands import jobs
from dosel.errors import DoselError


class Commands(TyperGroup):
    """Lists the commands without cutting their help to one line."""

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, (command.help or "").partition("\n\n")[0])
                    for name in self.list_commands(ctx)
                    if (command := self.get_command(ctx, name)) is not None and not command.hidden
                ]
            )


# Without rich, whose boxes around the help take a third of the time of `dosel --help`.
cli = typer.Typer(cls=Commands, no_args_is_help=True, rich_markup_mode=None, help="A model registry platform.")
for part in (platform, init, rows, predict, answers, models, versions, compare, ledgers, reproduce, events):
    cli.add_typer(part.commands)
cli.add_typer(shadow.commands)
cli.add_typer(cluster.commands, name="cluster", cls=Commands)
cli.add_typer(jobs, name="compose", cls=Commands)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"dosel {__version__}")
        raise typer.Exit


@cli.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """The options that come before a command."""


def main() -> None:
    """The entry point: every error that dosel raises on purpose is one message and exit code 1."""
    # Rows, models and passwords: what is created here is for its owner alone.
    os.umask(0o077)
    try:
        cli()
    except DoselError as error:
        text = escape(visible(str(error)))
        Console(stderr=True).print(f"[red bold]dosel:[/] {text}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
