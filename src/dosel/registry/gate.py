"""Whether a challenger enters Production: a decision on figures, made without touching anything."""

from dataclasses import dataclass

from dosel.usecases import Gate


@dataclass(frozen=True)
class Verdict:
    """The decision, and in words what it rests on."""

    passed: bool
    reason: str


def decide(gate: Gate, challenger: float, champion: float | None) -> Verdict:
    """Compares two scores of `gate.metric` on the same held-out rows.

    Args:
        champion: the score of what is in Production; None if nothing is.
    """
    if champion is None:
        return Verdict(True, f"{gate.metric} {challenger:.4f}; nothing was in Production")
    figures = f"{gate.metric} {challenger:.4f} against {champion:.4f} in Production, on the same held-out rows"
    if challenger - champion > gate.min_gain:
        return Verdict(True, f"better: {figures}")
    return Verdict(False, f"not better: {figures}")
