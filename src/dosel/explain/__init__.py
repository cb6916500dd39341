"""Explains answers: the nearest training rows, their principal components, and each value's contribution.

Distances are measured after the model's own preprocessing. Start at `Explainer`; `dosel.model.reference` keeps the
training rows that it needs.
"""

from dosel.explain.contributions import Contribution, Contributions
from dosel.explain.explainer import Explainer, Explanation
from dosel.explain.space import Neighbour, Point, PrincipalComponents
from dosel.explain.unusual import Unusual

__all__ = [
    "Contribution",
    "Contributions",
    "Explainer",
    "Explanation",
    "Neighbour",
    "Point",
    "PrincipalComponents",
    "Unusual",
    "Warning",
]
