"""The command for events and their delivery."""

from datetime import datetime
from typing import Annotated

import typer

from dosel.cli import common, output
from dosel.usecases import named

COLUMNS = ("id", "at", "kind", "use_case", "what", "evidence", "command", "link", "delivered")

commands = typer.Typer()


@commands.command()
def events(
    use_case: Annotated[
        str | None, typer.Option(help="Only events of this use case.", autocompletion=common.use_case_names)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of events to show.")] = 30,
    json: output.AsJson = False,
    deliver: Annotated[
        bool, typer.Option("--deliver", help="First send the messages that wait, except for quiet hours or a digest.")
    ] = False,
) -> None:
    """Show what happened, newest first, and whether its messages were delivered; exits 1 if one failed and waits."""
    settings = common.load_settings()
    # Events about the ledgers concern no use case.
    if use_case not in (None, "ledgers"):
        named(use_case)
    from dosel.db.engine import connect
    from dosel.monitor import delivery, messages
    from dosel.monitor.targets import target_names
    from dosel.terminal import events_table
    from dosel.warehouse.events import EventStore

    engine = connect(settings.warehouse_url)
    delivered = delivery.deliver(engine, settings, retry_now=True) if deliver else delivery.Delivered()
    found = EventStore(engine).newest(limit, use_case)
    records = [
        messages.document(event, settings)
        | {"delivered": "; ".join(attempt.in_words for attempt in event.deliveries), "deliveries": event.deliveries}
        for event in found
    ]
    output.show(records, COLUMNS, lambda: (events_table(found),), as_json=json, empty="there are no events yet")
    if deliver:
        where = "" if settings.sends_messages else "; no receiver: DOSEL_NOTIFY and DOSEL_NOTIFY_WEBHOOK are empty"
        output.note(f"events delivered: {delivered.sent}; receivers that failed: {delivered.failed}{where}")
    if why := delivery.held_back(settings, datetime.now().time()):
        output.note(why)
    targets = target_names(settings)
    waiting = any(attempt.failed and attempt.target in targets for event in found for attempt in event.deliveries)
    if delivered.failed or waiting:
        raise typer.Exit(1)
