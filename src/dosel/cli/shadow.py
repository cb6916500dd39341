"""Commands for versions in shadow."""

from json import dumps
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dosel.cli import common
from dosel.cli.common import UseCaseName
from dosel.usecases import adapted, chosen, named

if TYPE_CHECKING:
    from dosel.monitor.sequential import Tally
    from dosel.monitor.shadow_state import ShadowState
    from dosel.monitor.shadowing import Action
    from dosel.registry.shadows import Role

commands = typer.Typer(
    name="shadow",
    invoke_without_command=True,
    help="Show which versions answer in shadow of which, and what live rows showed; or end a shadow.",
)
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
Control = Annotated[
    bool, typer.Option("--control", help="Not the challenger, but the version that was in Production before.")
]


@commands.callback()
def shadows(
    context: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="As JSON, one shadow a line.")] = False,
) -> None:
    """Show which versions answer in shadow of which, and what live rows showed; or end a shadow."""
    if context.invoked_subcommand is not None:
        return
    settings = common.load_settings()
    from dosel.db.engine import connect
    from dosel.monitor.shadow_state import states
    from dosel.registry.ledger import PromotionLedger

    engine = connect(settings.warehouse_url)
    ledger = PromotionLedger(engine)
    found = [
        (use_case.name, state)
        for declared in chosen(settings.use_cases)
        for use_case in [adapted(declared, settings)]
        for state in states(use_case, ledger, engine)
    ]
    if json:
        for name, state in found:
            typer.echo(dumps({"use_case": name} | state.document(), ensure_ascii=False))
    elif not found:
        Console().print("no version is in shadow", highlight=False)
    else:
        Console(soft_wrap=True).print(_table(found), highlight=False)


@commands.command()
def stop(name: UseCaseName, reason: Reason, control: Control = False) -> None:
    """End a shadow without a judgement; Production stays as it is."""
    _steer(name, "stop", reason, control)


@commands.command()
def refuse(name: UseCaseName, reason: Reason, control: Control = False) -> None:
    """Refuse a version in shadow; Production stays as it is."""
    _steer(name, "refuse", reason, control)


@commands.command()
def promote(name: UseCaseName, reason: Reason, control: Control = False) -> None:
    """Put a version in shadow into Production now."""
    _steer(name, "promote", reason, control)


def _steer(name: str, action: "Action", reason: str, control: bool) -> None:
    settings = common.load_settings()
    from dosel.db.engine import connect
    from dosel.monitor.shadowing import steer
    from dosel.pipeline import bound_mlflow_requests
    from dosel.registry.ledger import PromotionLedger
    from dosel.registry.registry import Registry

    bound_mlflow_requests()
    use_case, engine = adapted(named(name), settings), connect(settings.warehouse_url)
    registry = Registry(settings.tracking_uri, PromotionLedger(engine))
    with common.logged():
        role: Role = "control" if control else "challenger"
        how = steer(use_case, registry, engine, role, action, common.actor(), reason)
    now = registry.last_promotion(use_case.model_name)
    in_production = f"version {now.to_version} is in Production" if now else "nothing is in Production"
    Console().print(f"{name}: the shadow of the {role} has ended: {how.outcome}; {in_production}", highlight=False)


def _table(found: "list[tuple[str, ShadowState]]") -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("use case", "version", "role", "answers", "labels", "correct", "champion", "e-value", "until", "now"):
        table.add_column(title, no_wrap=title != "now")
    for name, state in found:
        shadow, compared = state.shadow, state.comparison
        table.add_row(
            name,
            f"{shadow.version} beside {shadow.champion}",
            shadow.role,
            f"{state.traffic.answers:,}",
            f"{compared.labels:,}",
            _share(compared.shadow),
            _share(compared.champion),
            f"{compared.proof.e_value:.2g} of {compared.proof.e_needed:.0f}",
            f"{shadow.ends_at:%Y-%m-%d %H:%M}",
            escape(state.summary),
        )
    return table


def _share(tally: "Tally") -> str:
    return f"{tally.rate:.3f}" if tally.total else "–"
