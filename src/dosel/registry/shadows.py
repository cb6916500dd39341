"""Shadows in the promotion ledger: which version answered live rows beside the champion, and how that ended."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, func, literal, select, union_all

from dosel.db import chain
from dosel.db.tables import PROMOTIONS, SHADOW_ENDS, SHADOWS
from dosel.db.types import fitting
from dosel.registry import signed_entries
from dosel.settings import Settings
from dosel.signing import Keys

Role = Literal["challenger", "control"]
"""A challenger may replace the champion; a control was in Production before, and comes back if it is proven better."""

Outcome = Literal["promoted", "refused", "undecided", "stopped", "superseded", "confirmed", "rolled back"]
"""How a shadow ends. A challenger is promoted or refused; with a control, the champion is confirmed or rolled back.

Either is undecided at its deadline, stopped by a person or by a safety limit, or superseded by another change of
Production.
"""


@dataclass(frozen=True)
class ShadowEnd:
    """The decision that ended a shadow. `evidence` has what live rows showed, as JSON values."""

    outcome: Outcome
    actor: str
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class ShadowRecord:
    """One time that a version answers in shadow.

    Attributes:
        number: counts a model's shadows from 1.
        champion: the version in Production at the start, by the ledger's entry `sequence`.
        ends_at: the deadline.
        gate: the gate's report on a challenger.
        end: the decision; None while there is none.
    """

    model: str
    number: int
    role: Role
    version: int
    run_id: str
    champion: int
    sequence: int
    at: datetime
    ends_at: datetime
    actor: str
    reason: str
    gate: Mapping[str, Any] | None = None
    end: ShadowEnd | None = None


class ShadowCounts(NamedTuple):
    """How many shadows of a model began and ended, and the sequence of its last entry."""

    began: int
    ended: int
    sequence: int


def add(connection: Connection, shadow: ShadowRecord, settings: Settings) -> None:
    """Record and sign the start of a shadow.

    Raises:
        IntegrityError: the model has a shadow with this number.
    """
    values = {column.name: getattr(shadow, column.name) for column in SHADOWS.c if column.name != "id"}
    times = {name: _naive(values[name]) for name in ("at", "ends_at")}
    gate = None if shadow.gate is None else json.dumps(shadow.gate)
    texts = {"gate": gate, "actor": shadow.actor[:255], "reason": fitting(shadow.reason)}
    signed_entries.add(connection, SHADOWS, values | times | texts, settings)


def end(connection: Connection, shadow: ShadowRecord, how: ShadowEnd) -> bool:
    """Record the decision on a shadow; return False if it had ended before."""
    mine = (SHADOW_ENDS.c.model == shadow.model) & (SHADOW_ENDS.c.number == shadow.number)
    if connection.execute(select(SHADOW_ENDS.c.number).where(mine)).first() is not None:
        return False
    values = {
        "model": shadow.model,
        "number": shadow.number,
        "at": _naive(how.at),
        "outcome": how.outcome,
        "actor": how.actor[:255],
        "reason": fitting(how.reason),
        "evidence": json.dumps(how.evidence),
    }
    chain.add(connection, SHADOW_ENDS, values)
    return True


def of_model(connection: Connection, model: str) -> list[ShadowRecord]:
    """All shadows of a model, oldest first."""
    joined = SHADOWS.outerjoin(
        SHADOW_ENDS, (SHADOW_ENDS.c.model == SHADOWS.c.model) & (SHADOW_ENDS.c.number == SHADOWS.c.number)
    )
    ended = [column.label(f"end_{column.name}") for column in SHADOW_ENDS.c]
    query = select(SHADOWS, *ended).select_from(joined).where(SHADOWS.c.model == model).order_by(SHADOWS.c.number)
    return [_shadow(row) for row in connection.execute(query)]


def counts(connection: Connection, models: Collection[str]) -> dict[str, ShadowCounts]:
    """The counts of each model, in one query; entries without a valid signature count, too."""
    counted = ((SHADOWS, func.count()), (SHADOW_ENDS, func.count()), (PROMOTIONS, func.max(PROMOTIONS.c.sequence)))
    of_tables = [
        select(literal(place), table.c.model, count).where(table.c.model.in_(models)).group_by(table.c.model)
        for place, (table, count) in enumerate(counted)
    ]
    found = {model: [0] * len(counted) for model in models}
    for place, model, count in connection.execute(union_all(*of_tables)):
        found[model][place] = int(count)
    return {model: ShadowCounts(*numbers) for model, numbers in found.items()}


def signed(connection: Connection, model: str, keys: Keys) -> set[int]:
    """The numbers of a model's shadows whose start a trusted key signed."""
    rows = connection.execute(select(SHADOWS).where(SHADOWS.c.model == model)).mappings().all()
    return {row["number"] for row in signed_entries.proven(connection, SHADOWS, rows, keys)}


def _shadow(row: Row[Any]) -> ShadowRecord:
    decision = None
    if row.end_outcome is not None:
        decision = ShadowEnd(
            row.end_outcome, row.end_actor, row.end_reason, json.loads(row.end_evidence), row.end_at.replace(tzinfo=UTC)
        )
    return ShadowRecord(
        row.model,
        row.number,
        row.role,
        row.version,
        row.run_id,
        row.champion,
        row.sequence,
        row.at.replace(tzinfo=UTC),
        row.ends_at.replace(tzinfo=UTC),
        row.actor,
        row.reason,
        json.loads(row.gate) if row.gate else None,
        decision,
    )


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
