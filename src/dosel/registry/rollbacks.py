"""What a rollback returns to, and rollbacks that followed from live rows: only a person may undo one of those."""

from collections.abc import Iterable, Sequence

from dosel.registry.ledger import Promotion

MONITOR = "monitor"
"""Actor of rollbacks that follow from proven harm."""

SHADOW = "shadow"
"""Actor of decisions on versions in shadow."""


def rollback_candidates(history: Sequence[Promotion]) -> list[Promotion]:
    """Entries that a rollback may return to, newest last. Entries that a rollback undid are left out."""
    stack: list[Promotion] = []
    for entry in history:
        if entry.evidence.kind == "rollback":
            numbers = [e.to_version for e in stack]
            if entry.to_version in numbers:
                del stack[len(numbers) - 1 - numbers[::-1].index(entry.to_version) :]
        stack.append(entry)
    now = stack[-1].to_version if stack else None
    return [entry for entry in stack if entry.to_version != now]


def is_automatic(entry: Promotion) -> bool:
    """Whether an entry is a rollback that no person asked for."""
    return entry.evidence.kind == "rollback" and entry.actor in (MONITOR, SHADOW)


def rolled_back(history: Iterable[Promotion]) -> set[int]:
    """The versions that an automatic rollback moved out of Production."""
    return {entry.from_version for entry in history if is_automatic(entry) and entry.from_version is not None}
