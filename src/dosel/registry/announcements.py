"""The events of the registry: what became of Production, and whom the gate refused."""

from contextlib import suppress
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from dosel.actors import readable
from dosel.errors import UnknownUseCase
from dosel.usecases import of_model
from dosel.warehouse import events
from dosel.warehouse.events import Event

if TYPE_CHECKING:
    from dosel.registry.approvals import Request
    from dosel.registry.ledger import Promotion
    from dosel.registry.shadows import ShadowEnd, ShadowRecord
    from dosel.registry.verdicts import Verdict

_CAUSES = {
    "gate": "the gate promoted it",
    "shadow": "proven better on live rows",
    "manual": "promoted by hand",
    "rollback": "rolled back",
    "followed": "moved in MLflow",
}


def announce_promotion(connection: Connection, entry: "Promotion") -> None:
    """Write the event of an entry of the ledger, in its transaction."""
    name, kind = _use_case(entry.model), entry.evidence.kind
    before = f"after version {entry.from_version}" if entry.from_version else "the first one"
    event = Event(
        incident=f"promoted {entry.model} {entry.sequence}",
        use_case=name,
        kind="promoted",
        what=f"{name}: version {entry.to_version} is in Production, {before} ({_CAUSES[kind]})",
        evidence=f"{entry.reason} (by {readable(entry.actor)})",
        # After a rollback, there may be no earlier version to roll back to.
        command=f"dosel {'rollback' if entry.from_version and kind != 'rollback' else 'history'} {name}",
        place=_version_page(entry.model, entry.to_version),
        since=entry.at,
    )
    events.add(connection, event)


def announce_request(connection: Connection, request: "Request") -> None:
    """Write the event of a promotion that waits for approvals, in the transaction of its request."""
    subject, name = request.subject, _use_case(request.subject.model)
    event = Event(
        incident=f"approval {subject.model} {request.number}",
        use_case=name,
        kind="approval wanted",
        what=f"{name}: version {subject.version} waits for {request.people} people until "
        f"{request.expires_at:%Y-%m-%d %H:%M} UTC",
        evidence=f"{request.reason} (by {readable(request.actor)})",
        command=f'dosel promote {name} {subject.version} --reason "…"',
        place=_version_page(subject.model, subject.version),
        since=request.at,
    )
    events.add(connection, event)


def announce_refusal(connection: Connection, model: str, version: int, verdict: "Verdict") -> None:
    """Write the event of a verdict that kept a version out, in its transaction: one for each champion.

    The gate may refuse a version twice: after a person has trained and judged it, Airflow judges it again.
    """
    name, who = _use_case(model), "the gate" if verdict.report is not None else "the registration"
    report = verdict.report or {}
    rules, champion = report.get("rules", ()), report.get("champion")
    look = f"dosel compare {name} {champion} {version}" if champion else f"dosel versions {name}"
    failed = [f"{rule['name']}: {rule['words']}" for rule in rules if not rule["holds"]]
    event = Event(
        incident=f"refused {model} {version} by {champion}",
        use_case=name,
        kind="refused",
        what=f"{name}: {who} refused version {version}; Production stays as it is",
        evidence="; ".join(failed) or verdict.reason,
        command=look if report else f"dosel train {name}",
        place=_version_page(model, version),
    )
    events.add(connection, event)


def announce_shadow(connection: Connection, shadow: "ShadowRecord") -> None:
    """Write the event of a version that begins to answer in shadow, in the transaction of its record."""
    name = _use_case(shadow.model)
    event = Event(
        incident=f"shadow {shadow.model} {shadow.number}",
        use_case=name,
        kind="shadow",
        what=f"{name}: version {shadow.version} {_task(shadow)}, as {shadow.role}",
        evidence=f"{shadow.reason} (by {readable(shadow.actor)})",
        command="dosel shadow",
        place=f"page/challenger?use_case={name}",
        since=shadow.at,
    )
    events.add(connection, event)


def _task(shadow: "ShadowRecord") -> str:
    """What a version does beside the champion, by the declaration."""
    with suppress(UnknownUseCase):
        rules = of_model(shadow.model).gate.shadow
        if rules is not None and rules.share and shadow.role == "challenger":
            return f"answers {rules.share:.0%} of the values of {rules.sticky_by} instead of version {shadow.champion}"
    return f"answers in shadow of version {shadow.champion}"


def announce_shadow_end(connection: Connection, shadow: "ShadowRecord", how: "ShadowEnd") -> None:
    """Write the event of a shadow that ended without an entry of its version, in the transaction of its record."""
    name = _use_case(shadow.model)
    stays = "" if how.outcome == "superseded" else f"; version {shadow.champion} stays"
    event = Event(
        incident=f"shadow ended {shadow.model} {shadow.number}",
        use_case=name,
        kind="shadow",
        what=f"{name}: version {shadow.version} is no longer in shadow: {how.outcome}{stays}",
        evidence=f"{how.reason} (by {readable(how.actor)})",
        command="dosel shadow --ended",
        place=f"page/challenger?use_case={name}",
    )
    events.add(connection, event)


def announce_waiting(connection: Connection, shadow: "ShadowRecord", version: int) -> None:
    """Write the event of a version that passed the gate and waits for the end of another version's shadow."""
    name = _use_case(shadow.model)
    event = Event(
        incident=f"waiting {shadow.model} {version} for {shadow.number}",
        use_case=name,
        kind="shadow",
        what=f"{name}: version {version} passed the gate, and waits while version {shadow.version} is in shadow",
        evidence=f"that shadow ends on {shadow.ends_at:%Y-%m-%d %H:%M} UTC at the latest",
        command=f'dosel shadow stop {name} --reason "…"',
        place=f"page/challenger?use_case={name}",
    )
    events.add(connection, event)


def _use_case(model: str) -> str:
    try:
        return of_model(model).name
    except UnknownUseCase:
        # The ledger also has models whose declaration was removed.
        return model


def _version_page(model: str, version: int) -> str:
    return f"mlflow/#/models/{model}/versions/{version}"
