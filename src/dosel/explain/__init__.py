"""Why a model answered so: the training rows nearest to a row, where it lies among them, what each value contributed.

A model is a fitted scikit-learn `Pipeline` whose last step classifies; the steps before it make the space in which
rows are near or far. `Explainer` is the way in; what it needs of training is `dosel.model.reference`.
"""

from dosel.explain.contributions import Contribution, Contributions
from dosel.explain.explainer import Explainer, Explanation
from dosel.explain.space import Neighbour, Point, PrincipalComponents

__all__ = [
    "Contribution",
    "Contributions",
    "Explainer",
    "Explanation",
    "Neighbour",
    "Point",
    "PrincipalComponents",
]
