"""Decides on shadows: promote, refuse, roll back, or wait. Every decision is an entry of the ledger with its evidence.

Each decision is derived from the data store: after a kill, the next call in any process comes to the same decision.
"""

import logging
from contextlib import suppress
from datetime import timedelta
from typing import Literal

from sqlalchemy import Engine

from dosel.closed import shown
from dosel.errors import ApprovalsMissing, ModelNotFound, PromotionConflict, PromotionRefused, UntrustedModel
from dosel.monitor.comparison import CLASS_IS_WORSE
from dosel.monitor.pairs import PairStore
from dosel.monitor.shadow_state import ShadowState, compare, expired, is_canary, state_of
from dosel.registry.ledger import Promotion
from dosel.registry.registry import Registry
from dosel.registry.rollbacks import SHADOW, rolled_back
from dosel.registry.shadows import Outcome, Role, ShadowEnd, ShadowRecord
from dosel.registry.store import ModelVersion
from dosel.usecases import UseCase

Action = Literal["stop", "promote", "refuse"]

log = logging.getLogger(__name__)


def decide(use_case: UseCase, registry: Registry, engine: Engine) -> list[ShadowEnd]:
    """Count new labels of each open shadow, and end those that are decided.

    Without a declared shadow none starts; one that runs is decided by the default rules.

    Returns:
        The decisions made now.

    Raises:
        WarehouseError, RegistryError: the data store or MLflow cannot be reached, or refused.
    """
    model, rules = use_case.model_name, use_case.gate.shadow
    _end_superseded(registry, model)
    if rules is not None and rules.watch_back:
        _start_control(use_case, registry, timedelta(days=rules.max_days))
    decisions = []
    for shadow in registry.ledger.open_shadows(model):
        if not is_canary(use_case, shadow):
            PairStore(engine).collect(shadow)
        comparison = compare(use_case, shadow, engine)
        if comparison.proof.finding is None and not expired(shadow):
            # Agreement and latency, which take longer to read, are evidence of a decision only.
            continue
        decision = _decision(state_of(use_case, shadow, engine, comparison))
        if decision is not None and _act(registry, shadow, decision):
            reason = shown(use_case, decision.reason)
            log.info("%s version %d in shadow: %s, %s", model, shadow.version, decision.outcome, reason)
            decisions.append(decision)
    if decisions and rules is not None and rules.watch_back:
        _start_control(use_case, registry, timedelta(days=rules.max_days))
    return decisions


def end_by_hand(
    use_case: UseCase,
    registry: Registry,
    engine: Engine,
    role: Role,
    action: Action,
    actor: str,
    reason: str,
    holder: str | None = None,
) -> ShadowEnd:
    """End a shadow by a person's decision, with the evidence so far.

    Args:
        holder: the key's holder who decides; None without keys.

    Raises:
        ApprovalsMissing: the use case declares that more people must agree to a promotion.
        PromotionRefused: no version has this role now.
        PromotionConflict: Production changed, or the shadow ended, at this moment.
        UntrustedModel: the version's files are not those that were registered.
    """
    model = use_case.model_name
    shadow = next((s for s in registry.ledger.open_shadows(model) if s.role == role), None)
    if shadow is None:
        raise PromotionRefused(f"{model}: no version is in shadow as {role}; `dosel shadow` lists those that are")
    evidence = state_of(use_case, shadow, engine).evidence()
    if action == "promote":
        how = ShadowEnd("promoted" if role == "challenger" else "rolled back", actor, reason, evidence)
        _move(registry, shadow, how, "manual", holder)
        return how
    how = ShadowEnd("stopped" if action == "stop" else "refused", actor, reason, evidence)
    if not registry.end_shadow(shadow, how):
        raise PromotionConflict(f"{model}: the shadow of version {shadow.version} has just ended")
    return how


def promote(
    use_case: UseCase,
    registry: Registry,
    engine: Engine,
    version: ModelVersion,
    actor: str,
    reason: str,
    holder: str | None,
) -> Promotion:
    """Put a version into Production as a person asks for it.

    If the version waits for approval because live rows proved it better, its shadow ends with the rows' evidence.

    Raises:
        As `Registry.promote`.
    """
    name, last = version.name, registry.last_promotion(version.name)
    waits = any(
        (request.subject.kind, request.subject.version) == ("shadow", version.version)
        for request in registry.approvals.open(name, last.sequence if last else 0)
    )
    shadow = next((s for s in registry.ledger.open_shadows(name) if waits and s.version == version.version), None)
    if shadow is None:
        return registry.promote(version, actor, reason, holder=holder)
    how = ShadowEnd("promoted", actor, reason, state_of(use_case, shadow, engine).evidence())
    return _move(registry, shadow, how, "shadow", holder)


def _end_superseded(registry: Registry, model: str) -> None:
    running = [shadow for shadow in registry.ledger.shadows(model) if shadow.end is None]
    if not running:
        return
    last = registry.last_promotion(model)
    for shadow in running:
        if last is not None and shadow.sequence != last.sequence:
            reason = f"version {last.to_version} entered Production ({last.reason})"
            registry.end_shadow(shadow, ShadowEnd("superseded", SHADOW, reason))


def _start_control(use_case: UseCase, registry: Registry, length: timedelta) -> None:
    """Let the previous champion answer in shadow, once after each promotion."""
    model, history = use_case.model_name, registry.ledger.history(use_case.model_name)
    last = history[-1] if history else None
    if last is None or last.from_version is None or last.evidence.kind not in ("gate", "shadow", "manual"):
        return
    # A person decided on a version that was rolled back before: that decision stays.
    if last.to_version in rolled_back(history):
        return
    if any(s.role == "control" and s.sequence == last.sequence for s in registry.ledger.shadows(model)):
        return
    reason = f"it was in Production before version {last.to_version}, and comes back if it is proven better"
    try:
        version = registry.version(model, last.from_version)
        if version.run_id == history[-2].evidence.to_run:
            with suppress(PromotionConflict):
                registry.start_shadow(version, "control", length, SHADOW, reason, last.sequence)
    except (ModelNotFound, UntrustedModel) as error:
        registry.ledger.note(model, f"version {last.from_version} cannot answer in shadow as control: {error}")


def _decision(state: ShadowState) -> ShadowEnd | None:
    shadow, comparison = state.shadow, state.comparison
    finding, figures = state.finding, comparison.in_words
    is_challenger = shadow.role == "challenger"
    outcome: Outcome
    if finding is None:
        if not expired(shadow):
            return None
        outcome = "undecided"
        shown_so_far = f"{figures}; " if comparison.labels else ""
        reason = (
            f"nothing was proven by the deadline, so version {shadow.champion} stays; {shown_so_far}"
            f"missing: {state.missing}"
        )
    else:
        if finding == "better":
            outcome = "promoted" if is_challenger else "rolled back"
        else:
            outcome = "refused" if is_challenger else "confirmed"
        what = f"worse at {_worst(state)}" if finding == CLASS_IS_WORSE else finding
        reason = f"proven {what} by {comparison.proof.after:,} {comparison.unit}; {figures}"
    return ShadowEnd(outcome, SHADOW, reason, state.evidence())


def _worst(state: ShadowState) -> str:
    falls = state.comparison.proof.falls
    return max(falls, key=falls.__getitem__)


def _act(registry: Registry, shadow: ShadowRecord, how: ShadowEnd) -> bool:
    """Carry a decision out; return False if somebody else decided meanwhile."""
    if how.outcome not in ("promoted", "rolled back"):
        return registry.end_shadow(shadow, how)
    try:
        _move(registry, shadow, how, "shadow")
    except PromotionConflict:
        return False
    except ApprovalsMissing as waiting:
        log.info("%s version %d in shadow is proven better; %s", shadow.model, shadow.version, waiting)
        return False
    except (ModelNotFound, UntrustedModel, PromotionRefused) as error:
        stopped = ShadowEnd("stopped", SHADOW, f"{how.reason}, and cannot enter Production: {error}", how.evidence)
        return registry.end_shadow(shadow, stopped)
    return True


def _move(
    registry: Registry,
    shadow: ShadowRecord,
    how: ShadowEnd,
    kind: Literal["shadow", "manual"],
    holder: str | None = None,
) -> Promotion:
    if shadow.role == "control":
        return registry.roll_back(shadow.model, how.actor, how.reason, shadow.version, shadow.sequence, (shadow, how))
    version = registry.version(shadow.model, shadow.version)
    if version.run_id != shadow.run_id:
        raise UntrustedModel(f"MLflow's version {shadow.version} is another one than the one in shadow")
    evidence = registry.gate_evidence(version, shadow.gate or {}, kind)
    return registry.promote(version, how.actor, how.reason, evidence, shadow.sequence, (shadow, how), holder)
