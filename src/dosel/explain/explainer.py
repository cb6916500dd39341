"""Explains the answer for one row, with the model that gave it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dosel.explain.contributions import Contributions, Contributor
from dosel.explain.space import Neighbour, PrincipalComponents, Space
from dosel.explain.unusual import TrainingRanges, Unusual
from dosel.model.predictor import Prediction, Predictor
from dosel.model.reference import read


@dataclass(frozen=True)
class Explanation:
    """An explanation.

    `rows` are the neighbours' values, in their order; empty for a closed use case. `contributions` is None if they were
    not asked for, or if a closed use case has too few training rows for them.
    """

    prediction: Prediction
    neighbours: tuple[Neighbour, ...]
    rows: tuple[dict[str, Any], ...]
    projection: PrincipalComponents
    contributions: Contributions | None
    warnings: tuple[Unusual, ...]


class Explainer:
    """Explains the answers of `predictor`. Creating one takes seconds, and memory for the training rows.

    Args:
        content: the training rows, as `dosel.model.reference` wrote them.

    Raises:
        NotExplainable: `content` is of another declaration.
    """

    def __init__(self, predictor: Predictor, content: bytes) -> None:
        self._predictor = predictor
        self._exposes_rows = predictor.use_case.expose_training_rows
        self._reference = read(predictor.use_case, content)
        self._space = Space(predictor.encoded, self._reference)
        self._training = TrainingRanges(predictor.use_case, self._reference, self._space)
        self._contributor = Contributor(predictor, self._reference, _seed(content))

    def explain(self, row: Mapping[str, Any], neighbours: int, budget: float | None) -> Explanation:
        """Explain the answer for one valid row.

        Args:
            neighbours: number of neighbours; at most the number of training rows.
            budget: seconds for contributions that are not exact; None omits all contributions.
        """
        [prediction] = self._predictor.predict([row])
        numbers = self._predictor.matrix([row])
        encoded = self._predictor.encoded(numbers)
        nearest = self._space.nearest(encoded, neighbours)
        values = self._reference.shown([n.place for n in nearest]) if self._exposes_rows else []
        contributions = None
        if budget is not None:
            chosen = self._predictor.classes.index(prediction.prediction)
            contributions = self._contributor.explain(numbers, encoded, chosen, budget)
        warnings = self._training.warnings(row, encoded, nearest[0].distance)
        projection = self._space.projection(encoded)
        return Explanation(prediction, nearest, tuple(values), projection, contributions, warnings)


def _seed(content: bytes) -> int:
    """A seed that only those who have the training rows can compute, the same in every process.

    The file's SHA-256 would not do: the manifest shows it.
    """
    return int.from_bytes(hashlib.blake2b(content, digest_size=16, person=b"dosel explain 1").digest())
