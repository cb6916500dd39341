"""Commands for versions in shadow."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from dosel.actors import readable
from dosel.cli import common, output
from dosel.cli.common import UseCaseName
from dosel.usecases import UseCase, adapted, chosen, named

if TYPE_CHECKING:
    from dosel.monitor.shadow_state import ShadowState
    from dosel.monitor.shadowing import Action
    from dosel.registry.shadows import Role
    from dosel.settings import Settings

commands = typer.Typer(
    name="shadow",
    invoke_without_command=True,
    help="Show the versions in shadow, their champions and their evidence. The subcommands end a shadow.",
)
COLUMNS = ("use_case", "role", "version", "champion", "number", "since", "until", "now", "actor", "reason")
ENDED_COLUMNS = ("use_case", "role", "version", "champion", "number", "since", "ended", "outcome", "actor", "reason")
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
    use_case: Annotated[
        str | None, typer.Option(help="Only shadows of this use case.", autocompletion=common.use_case_names)
    ] = None,
    json: output.AsJson = False,
    ended: Annotated[bool, typer.Option("--ended", help="Show the shadows that have ended, newest first.")] = False,
) -> None:
    """Show the versions in shadow, their champions and their evidence. The subcommands end a shadow."""
    if context.invoked_subcommand is not None:
        return
    settings = common.load_settings()
    asked = chosen(settings.use_cases) if use_case is None else (named(use_case),)
    if ended:
        _show_ended(settings, asked, json)
        return
    from dosel.db.engine import connect
    from dosel.monitor.shadow_state import states
    from dosel.registry.ledger import PromotionLedger

    engine = connect(settings.warehouse_url)
    ledger = PromotionLedger(engine)
    found = [
        (declared.name, state)
        for declared in [adapted(one, settings) for one in asked]
        for state in states(declared, ledger, engine)
    ]
    output.show(
        [{"use_case": name} | state.document() for name, state in found],
        COLUMNS,
        lambda: (escape(line) for name, state in found for line in _lines(name, state)),
        as_json=json,
        empty="no version is in shadow",
    )


def _show_ended(settings: "Settings", asked: Iterable[UseCase], as_json: bool) -> None:
    from dosel.db.engine import connect
    from dosel.registry.ledger import PromotionLedger

    ledger = PromotionLedger(connect(settings.warehouse_url))
    records = [
        {
            **{name: getattr(shadow, name) for name in ("role", "version", "champion", "number")},
            **{"use_case": of.name, "since": shadow.at.isoformat(), "ended": shadow.end.at.isoformat()},
            **{name: getattr(shadow.end, name) for name in ("outcome", "actor", "reason", "evidence")},
        }
        for of in asked
        for shadow in reversed(ledger.shadows(of.model_name))
        if shadow.end is not None
    ]

    def lines() -> Iterator[str]:
        for one in records:
            who = f"version {one['version']}, {one['role']} of version {one['champion']}"
            yield f"{one['use_case']}: {who}: {one['outcome']}"
            yield f"  {one['ended'][:16].replace('T', ' ')} UTC, by {readable(one['actor'])}: {one['reason']}"
            if labels := one["evidence"].get("labels"):
                right = (f"{one['evidence'][name]['correct']:,}" for name in ("shadow", "champion"))
                yield f"  evidence: {labels:,} compared, {' and '.join(right)} correct"

    output.show(records, ENDED_COLUMNS, lambda: map(escape, lines()), as_json=as_json, empty="no shadow has ended yet")


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
    if traffic.share is None:
        yield f"{name}: version {shadow.version} answers in shadow of version {shadow.champion}, as {shadow.role}"
    else:
        yield (
            f"{name}: version {shadow.version} answers clients as canary: {traffic.share:.1%} of the one-row requests "
            f"so far, version {shadow.champion} the others"
        )
    yield f"  it {state.summary}; until {shadow.ends_at:%Y-%m-%d %H:%M} UTC"
    if compared.labels:
        yield f"  {compared.in_words}"
        yield (
            f"  evidence that it is better {proof.e_value:.2g}, that it is worse {proof.e_against:.2g}; "
            f"each is proven at {proof.e_needed:.0f}"
        )
    # Of a canary's rows, each is answered by one of the two.
    if traffic.share is None:
        agreed = "" if traffic.agreement is None else f", {traffic.agreement:.1%} with the same class"
        yield f"  {traffic.answers:,} rows answered by both{agreed}"
