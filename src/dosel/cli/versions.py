"""The command that lists a model's versions."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

import typer

from dosel.cli import common, output
from dosel.cli.common import ModelName
from dosel.usecases import Metric

if TYPE_CHECKING:
    from dosel.registry.listing import KnownVersion

commands = typer.Typer()


@commands.command()
def versions(name: ModelName, json: output.AsJson = False) -> None:
    """List a model's versions, newest first: family, figures on held-out rows, and where each one stands."""
    from dosel.registry.listing import known_versions

    model, ledger = common.promotion_ledger(name)
    found = known_versions(ledger, model)
    figures = get_args(Metric)
    output.show(
        [vars(v) | {f"holdout_{metric}": v.holdout.get(metric) for metric in figures} for v in found],
        ("version", "at", "family", "state", *(f"holdout_{metric}" for metric in figures), "reason", "run_id"),
        lambda: (
            output.plain_table(
                (
                    "version",
                    "registered (UTC)",
                    "family",
                    *(metric.replace("_", " ") for metric in figures),
                    "run",
                    "state",
                ),
                (tuple(_version_cells(version)) for version in found),
                least=("run", "registered (UTC)", *(metric.replace("_", " ") for metric in reversed(figures))),
            ),
        ),
        as_json=json,
        empty=f"no version of {model} is registered yet",
    )
    known = {version.version for version in found}
    if unknown := sorted(set(range(1, max(known, default=0))) - known):
        listed = ", ".join(map(str, unknown))
        output.note(f"the data store does not know version {listed}: it was deleted, or registered without dosel")


def _version_cells(version: "KnownVersion") -> Iterator[str]:
    yield str(version.version)
    yield f"{version.at:%Y-%m-%d %H:%M:%S}" if version.at else "–"
    yield version.family or "–"
    for metric in get_args(Metric):
        value = version.holdout.get(metric)
        yield "–" if value is None else f"{value:.4f}"
    yield output.short(version.run_id)
    yield version.state
