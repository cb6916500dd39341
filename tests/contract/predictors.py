"""Predictors that another process can import: one that answers, and ones that fail."""

import os
from typing import Any

from dosel.errors import UntrustedModel
from dosel.model.predictor import Prediction, Scores


class Ends:
    """A predictor whose process ends."""

    def one(self, *_: Any) -> None:
        os._exit(3)


class Loops:
    """A predictor that never answers."""

    def one(self, *_: Any) -> None:
        while True:
            pass


class Raises:
    def one(self, *_: Any) -> None:
        raise ValueError("secret")


class Changed:
    """A predictor whose file was changed on the disk."""

    def __reduce__(self) -> Any:
        raise UntrustedModel("model.skops was changed")


class Answers:
    def one(self, *_: Any) -> None:
        """Measured, and not used."""

    def scores(self, numbers: Any, codes: Any) -> Scores:
        return Scores(codes[:, 0], numbers)

    def at(self, scores: Scores, place: int) -> Prediction:
        return Prediction(int(scores.chosen[place]), "x", {"x": float(scores.probabilities[place, 0])})
