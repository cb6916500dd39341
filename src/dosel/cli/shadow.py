"""Commands for versions in shadow."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from dosel.cli import common, output
from dosel.cli.common import UseCaseName
from dosel.usecases import adapted, chosen, named

if TYPE_CHECKING:
    from dosel.monitor.shadow_state import ShadowState
    from dosel.monitor.shadowing import Action
    from dosel.registry.shadows import Role

commands = typer.Typer(
    name="shadow",
    invoke_without_command=True,
    help="Show the versions in shadow, their champions and their evidence. The subcommands end a shadow.",
)
COLUMNS = ("use_case", "role", "version", "champion", "number", "since", "until", "now", "actor", "reason")
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
Control = Annotated[
    bool,
    typer.Option(
        "--control", help="Apply the command to the control (the previous champion) instead of the challenger."
    ),
]


@commands.callback()
def shadows(
    context: typer.Context,
    json: output.AsJson = False,
) -> None:
    """Show the versions in shadow, their champions and their evidence. The subcommands end a shadow."""
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
    output.show(
        [{"use_case": name} | state.document() for name, state in found],
        COLUMNS,
        lambda: (escape(line) for name, state in found for line in _lines(name, state)),
        as_json=json,
        empty="no version is in shadow",
    )


@commands.command()
def stop(name: UseCaseName, reason: Reason, control: Control = False) -> None:
    """End a shadow without a judgement; Production stays as it is."""
    _end(name, "stop", reason, control)


@commands.command()
def refuse(name: UseCaseName, reason: Reason, control: Control = False) -> None:
    """Refuse a version in shadow; Production stays as it is."""
    _end(name, "refuse", reason, control)


@commands.command()
def promote(name: UseCaseName, reason: Reason, control: Control = False) -> None:
    """Put a version in shadow into Production now."""
    _end(name, "promote", reason, control)


def _end(name: str, action: "Action", reason: str, control: bool) -> None:
    settings = common.load_settings()
    from dosel.db.engine import connect
    from dosel.errors import ApprovalsMissing
    from dosel.monitor.shadowing import end_by_hand
    from dosel.pipeline import bound_mlflow_requests
    from dosel.registry.registry import Registry

    bound_mlflow_requests()
    use_case, engine = adapted(named(name), settings), connect(settings.warehouse_url)
    registry = Registry.opened(settings, engine)
    role: Role = "control" if control else "challenger"
    try:
        with common.logged():
            how = end_by_hand(use_case, registry, engine, role, action, common.actor(), reason, common.holder())
    except ApprovalsMissing as waiting:
        output.line(str(waiting))
        return
    now = registry.last_promotion(use_case.model_name)
    in_production = f"version {now.to_version} is in Production" if now else "nothing is in Production"
    output.line(f"{name}: the shadow of the {role} has ended: {how.outcome}; {in_production}")


def _lines(name: str, state: "ShadowState") -> Iterator[str]:
    shadow, compared, traffic, proof = state.shadow, state.comparison, state.traffic, state.comparison.proof
    yield f"{name}: version {shadow.version} answers in shadow of version {shadow.champion}, as {shadow.role}"
    yield f"  it {state.summary}; until {shadow.ends_at:%Y-%m-%d %H:%M} UTC"
    if compared.labels:
        yield f"  {compared.in_words}"
        yield (
            f"  evidence that it is better {proof.e_value:.2g}, that it is worse {proof.e_against:.2g}; "
            f"each is proven at {proof.e_needed:.0f}"
        )
    agreed = "" if traffic.agreement is None else f", {traffic.agreement:.1%} with the same class"
    yield f"  {traffic.answers:,} rows answered by both{agreed}"
