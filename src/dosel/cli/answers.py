"""Commands for the prediction log: feedback on answers, and retention."""

import json
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dosel.cli import common
from dosel.errors import ServiceError
from dosel.usecases import DEFAULT

commands = typer.Typer()


@commands.command()
def feedback(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV, or a JSON list if it ends in .json.")],
    use_case: Annotated[
        str,
        typer.Option(
            help="Name of the use case; by default that of `POST /predict`.", autocompletion=common.use_case_names
        ),
    ] = "",
    key: Annotated[
        str, typer.Option(help="Key of the API; by default DOSEL_API_KEY, or the first declared one that may predict.")
    ] = "",
) -> None:
    """Send the true classes of answered rows, from a file with the columns request_id, row and truth.

    Sending a truth again changes nothing. Rows without a truth are left out.
    """
    settings = common.load_settings()
    from dosel.client import FEEDBACK_ROWS, ApiProblem, Client
    from dosel.monitor.feedback_rows import csv_rows

    content = file.read_bytes()
    try:
        rows = json.loads(content) if file.suffix == ".json" else list(csv_rows(content))
    except ValueError as error:
        raise typer.BadParameter(f"{file} is not JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise typer.BadParameter(f"{file}: expected rows with request_id, truth and, for a bulk request, row")
    known = [row for row in rows if row.get("truth") not in (None, "")]
    with Client(settings.api_url, key=key or settings.own_key) as client:
        try:
            counts = client.feedback(use_case or _default(), known)
        except ApiProblem as error:
            if len(known) > FEEDBACK_ROWS:
                raise ServiceError(
                    f"{error}; the rows are sent in parts of {FEEDBACK_ROWS:,}, and those before the refused part are "
                    "stored: correct the row and send the whole file again"
                ) from error
            if use_case or error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            raise ServiceError(f"{error}; the rows were taken for {_default()}: --use-case names another") from error
    words = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())
    if len(known) < len(rows):
        words += f"{', ' if words else ''}{len(rows) - len(known):,} without a truth"
    Console().print(
        f"{len(rows):,} row{'' if len(rows) == 1 else 's'}: {words or 'the file is empty'}", highlight=False
    )


@commands.command()
def prune(
    days: Annotated[int | None, typer.Option(min=1, help="By default `DOSEL_PREDICTION_DAYS`.")] = None,
) -> None:
    """Delete old answers from the prediction log, with their feedback; labelled rows stay."""
    settings = common.load_settings()
    from dosel.db.engine import connect
    from dosel.warehouse.retention import prune as delete

    deleted = delete(connect(settings.warehouse_url), days or settings.prediction_days, settings.prediction_rows)
    Console().print(f"{deleted:,} answers deleted", highlight=False)


def _default() -> str:
    return DEFAULT.name if DEFAULT else ""
