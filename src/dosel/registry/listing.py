"""A model's versions as the data store knows them: reading them needs no MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from dosel.model.facts import held_out
from dosel.registry.ledger import PromotionLedger
from dosel.registry.manifests import Manifest
from dosel.registry.shadows import ShadowEnd
from dosel.registry.verdicts import Verdict

State = Literal[
    "Production",
    "challenger",
    "control",
    "was in Production",
    "refused on live rows",
    "undecided on live rows",
    "stopped in shadow",
    "passed",
    "refused",
    "not judged",
]
"""Where a version stands: in Production or in shadow now, in Production before, or what was last decided on it: by live
rows if it was a challenger in shadow, otherwise by the gate."""

_AFTER_SHADOW: Mapping[str, State] = {
    "refused": "refused on live rows",
    "undecided": "undecided on live rows",
    "stopped": "stopped in shadow",
}


@dataclass(frozen=True)
class KnownVersion:
    """A registered version.

    Attributes:
        at: when its manifest was recorded; None if dosel did not register it.
        family: None if no training of dosel recorded it.
        holdout: the training's figures on the held-out rows, by metric; empty if no training recorded them.
        reason: why the last decision on it was made; empty if there was none.
    """

    version: int
    at: datetime | None
    family: str | None
    state: State
    holdout: Mapping[str, float]
    reason: str
    run_id: str


def known_versions(ledger: PromotionLedger, model: str) -> list[KnownVersion]:
    """The versions that have a manifest or were in Production, newest first."""
    verdicts, last = ledger.verdicts(model), ledger.last(model)
    manifests = {(manifest.version, manifest.run_id): manifest for manifest in ledger.manifests(model)}
    entries = {(entry.to_version, entry.evidence.to_run or ""): entry for entry in ledger.history(model)}
    now: dict[tuple[int, str], State] = {}
    after_shadow: dict[tuple[int, str], ShadowEnd] = {}
    for shadow in ledger.shadows(model):
        if shadow.end is None:
            now[shadow.version, shadow.run_id] = shadow.role
        elif shadow.role == "challenger" and shadow.end.outcome in _AFTER_SHADOW:
            after_shadow[shadow.version, shadow.run_id] = shadow.end
    if last is not None:
        now[last.to_version, last.evidence.to_run or ""] = "Production"
    found = []
    for key in sorted({*manifests, *entries}, reverse=True):
        manifest, verdict, entry = manifests.get(key), verdicts.get(key), entries.get(key)
        before, reason = _judged(verdict), verdict.reason if verdict else ""
        if ended := after_shadow.get(key):
            before, reason = _AFTER_SHADOW[ended.outcome], ended.reason
        if entry:
            before = "was in Production"
            reason = f"put back: {entry.reason}" if entry.evidence.kind == "rollback" else entry.reason
        at, family = (manifest.at, manifest.family) if manifest else (None, None)
        found.append(KnownVersion(key[0], at, family, now.get(key, before), _holdout(manifest), reason, key[1]))
    return found


def _judged(verdict: Verdict | None) -> State:
    if verdict is None:
        return "not judged"
    return "passed" if verdict.passed else "refused"


def _holdout(manifest: Manifest | None) -> dict[str, float]:
    return held_out(manifest.facts.metrics) if manifest and manifest.facts else {}
