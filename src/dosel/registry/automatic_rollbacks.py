"""Rollbacks that followed from live rows: each happens once, and only a person may undo it."""

from collections.abc import Iterable

from dosel.registry.ledger import Promotion

MONITOR = "monitor"
"""Actor of rollbacks that follow from proven harm."""

SHADOW = "shadow"
"""Actor of decisions on versions in shadow."""


def is_automatic(entry: Promotion) -> bool:
    """Whether an entry is a rollback that no person asked for."""
    return entry.evidence.kind == "rollback" and entry.actor in (MONITOR, SHADOW)


def rolled_back(history: Iterable[Promotion]) -> set[int]:
    """The versions that an automatic rollback moved out of Production."""
    return {entry.from_version for entry in history if is_automatic(entry) and entry.from_version is not None}
