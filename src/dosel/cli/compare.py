"""The command that shows two versions side by side."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from dosel.cli import common, output
from dosel.cli.common import ModelName
from dosel.closed import shown
from dosel.usecases import of_model

commands = typer.Typer()


@commands.command()
def compare(
    name: ModelName,
    a: Annotated[int, typer.Argument(help="The number of a version.")],
    b: Annotated[int, typer.Argument(help="The number of another one.")],
    json: output.AsJson = False,
) -> None:
    """Show two versions side by side, on the held-out rows that neither was trained on."""
    settings = common.load_settings()
    from dosel.pipeline import Pipeline

    use_case = of_model(name)
    # Coarse figures for a closed use case, as over HTTP: printed output is easily passed on.
    found = shown(use_case, asdict(Pipeline(use_case, settings).compare(a, b)))
    records = [_record(figure) for figure in found["figures"]]
    titles = ("figure", "rows", f"version {a}", f"version {b}", "difference")
    output.show(
        [found] if json else records,
        ("figure", "slice", "rows", "a", "a_low", "a_high", "b", "b_low", "b_high", "difference", "low", "high"),
        lambda: (output.plain_table(titles, _cells(found), folding=(titles[0], *titles[2:]), least=("rows",)),),
        as_json=json,
        empty=f"{name} has no held-out rows that neither version was trained on",
    )
    if json:
        return
    output.note(
        f"{found['rows']:,} held-out rows: both right {found['both']:,}, only version {a} {found['only_a']:,}, only "
        f"version {b} {found['only_b']:,}, neither {found['neither']:,}; intervals of {found['confidence']:.0%}"
    )
    if found["rules"]:
        output.note(f"the gate on version {b} as the challenger of {a}:")
    for rule in found["rules"]:
        verdict = "holds" if rule["holds"] else "fails"
        output.note(f"  {rule['name']} {verdict}: {rule['words']}")


def _record(figure: Mapping[str, Any]) -> Mapping[str, Any]:
    a, b, difference = figure["a"], figure["b"], figure["difference"]
    return {
        "figure": figure["name"],
        "slice": figure["slice"],
        "rows": figure["rows"],
        **{"a": a["value"], "a_low": a["low"], "a_high": a["high"]},
        **{"b": b["value"], "b_low": b["low"], "b_high": b["high"]},
        **{"difference": difference["value"], "low": difference["low"], "high": difference["high"]},
    }


def _cells(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for figure in found["figures"]:
        name = f"{figure['name']}, {figure['slice']}" if figure["slice"] else figure["name"]
        difference = _share(figure["difference"], "+.4f")
        yield name, f"{figure['rows']:,}", _share(figure["a"], ".4f"), _share(figure["b"], ".4f"), difference


def _share(share: Mapping[str, Any], form: str) -> str:
    interval = "" if share["low"] is None else f" ({share['low']:{form}} to {share['high']:{form}})"
    return f"{share['value']:{form}}{interval}"
