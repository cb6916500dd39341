"""The command that shows two versions side by side."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dosel.cli import common, output
from dosel.cli.common import ModelName
from dosel.usecases import of_model

if TYPE_CHECKING:
    from dosel.registry.side_by_side import Comparison, Share

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

    found = Pipeline(of_model(name), settings).compare(a, b)
    records = [_record(figure) for figure in found.figures]
    titles = ("figure", "rows", f"version {a}", f"version {b}", "difference")
    output.show(
        [vars(found)] if json else records,
        ("figure", "slice", "rows", "a", "a_low", "a_high", "b", "b_low", "b_high", "difference", "low", "high"),
        lambda: (output.plain_table(titles, _cells(found), folding=titles[2:], least=("rows",)),),
        as_json=json,
        empty=f"{name} has no held-out rows that neither version was trained on",
    )
    if json:
        return
    output.note(
        f"{found.rows:,} held-out rows: both right {found.both:,}, only version {a} {found.only_a:,}, only version {b} "
        f"{found.only_b:,}, neither {found.neither:,}; intervals of {found.confidence:.0%}"
    )
    for rule in found.rules:
        output.note(f"gate, version {b} for the place of {a}: {rule.name} {_verdict(rule.holds)}: {rule.words}")


def _record(figure: Any) -> Mapping[str, Any]:
    return {
        "figure": figure.name,
        "slice": figure.slice,
        "rows": figure.rows,
        **{"a": figure.a.value, "a_low": figure.a.low, "a_high": figure.a.high},
        **{"b": figure.b.value, "b_low": figure.b.low, "b_high": figure.b.high},
        **{"difference": figure.difference.value, "low": figure.difference.low, "high": figure.difference.high},
    }


def _cells(found: "Comparison") -> Iterator[tuple[str, ...]]:
    for figure in found.figures:
        name = f"{figure.name}, {figure.slice}" if figure.slice else figure.name
        difference = _share(figure.difference, "+.4f")
        yield name, f"{figure.rows:,}", _share(figure.a, ".4f"), _share(figure.b, ".4f"), difference


def _share(share: "Share", form: str) -> str:
    return f"{share.value:{form}}" + ("" if share.low is None else f" ({share.low:{form}} to {share.high:{form}})")


def _verdict(holds: bool) -> str:
    return "holds" if holds else "fails"
