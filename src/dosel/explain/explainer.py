"""All there is to say about one row's answer, by the model that gave it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dosel.explain.contributions import Contributions, Contributor
from dosel.explain.space import Neighbour, PrincipalComponents, Space
from dosel.model.predictor import Prediction, Predictor
from dosel.model.reference import read


@dataclass(frozen=True)
class Explanation:
    """`rows` are the neighbours' own, in their order; empty where the use case does not show training rows."""

    prediction: Prediction
    neighbours: tuple[Neighbour, ...]
    rows: tuple[dict[str, Any], ...]
    projection: PrincipalComponents
    contributions: Contributions | None


class Explainer:
    """Explains what `predictor` answers. To make one takes seconds with many training rows, and memory for them.

    Args:
        content: what `dosel.model.reference` wrote when the model was trained.

    Raises:
        NotExplainable: `content` is of another declaration.
    """

    def __init__(self, predictor: Predictor, content: bytes) -> None:
        self._predictor = predictor
        self._reference = read(predictor.use_case, content)
        self._space = Space(predictor.encoded, self._reference)
        self._contributor = Contributor(predictor, self._reference)

    def explain(self, row: Mapping[str, Any], neighbours: int, budget: float | None) -> Explanation:
        """Explains the answer for one acceptable row.

        Args:
            neighbours: how many; as many as there are training rows, if that is less.
            budget: seconds that contributions may take where they are not exact; None leaves them out.
        """
        [prediction] = self._predictor.predict([row])
        numbers = self._predictor.matrix([row])
        encoded = self._predictor.encoded(numbers)
        nearest = self._space.nearest(encoded, neighbours)
        shown = (
            self._reference.shown([n.place for n in nearest]) if self._predictor.use_case.expose_training_rows else []
        )
        return Explanation(
            prediction=prediction,
            neighbours=nearest,
            rows=tuple(shown),
            projection=self._space.projection(encoded),
            contributions=None
            if budget is None
            else self._contributor.explain(
                numbers, encoded, self._predictor.classes.index(prediction.prediction), budget
            ),
        )
