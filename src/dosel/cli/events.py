"""The command for events and their delivery."""

from json import dumps
from typing import Annotated

import typer
from rich.console import Console

from dosel.cli import common

commands = typer.Typer()


@commands.command()
def events(
    use_case: Annotated[str | None, typer.Option(help="Only events of this use case.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most events to show.")] = 30,
    json: Annotated[bool, typer.Option("--json", help="As JSON, one event a line.")] = False,
    deliver: Annotated[bool, typer.Option("--deliver", help="First send the messages that are due.")] = False,
) -> None:
    """Show what happened, newest first, and whether its messages were delivered; exits 1 if a delivery failed."""
    settings = common.load_settings()
    from dosel.db.engine import connect
    from dosel.monitor import delivery, messages
    from dosel.terminal import events_table
    from dosel.warehouse.events import EventStore

    engine = connect(settings.warehouse_url)
    delivered = delivery.deliver(engine, settings) if deliver else delivery.Delivered()
    found = EventStore(engine).newest(limit, use_case)
    if json:
        for event in found:
            typer.echo(dumps(messages.document(event, settings), ensure_ascii=False))
    else:
        Console(soft_wrap=True).print(events_table(found) if found else "there are no events yet")
    if deliver:
        where = "" if settings.sends_messages else "; no target: DOSEL_NOTIFY and DOSEL_NOTIFY_WEBHOOK are empty"
        Console(stderr=True).print(f"{delivered.sent} messages sent, {delivered.failed} failed{where}", highlight=False)
    if delivered.failed:
        raise typer.Exit(1)
