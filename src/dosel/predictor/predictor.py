"""A model in the form that answers: the fastest one that was seen to give the model's own answers."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dosel.errors import RegistryError
from dosel.predictor.compiled import Compiled, compiled
from dosel.predictor.encoding import Codes, Encoder, Floats, NotEncodable
from dosel.predictor.proof import TOLERANCE, trial_rows
from dosel.usecases import Number, UseCase

Form = Literal["onnx", "scikit-learn"]

DECIMALS = 7
"""Decimals of a probability: what a float32, in which ONNX Runtime computes, can hold."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one row: the class's code, what it is called, and each class's probability."""

    prediction: int
    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Scores:
    """The answers for many rows: `chosen` is each row's place in the predictor's `classes` and `names`.

    `probabilities` has the shape (rows, classes), float64.
    """

    chosen: npt.NDArray[np.intp]
    probabilities: Floats


class Predictor:
    """Answers with a fitted pipeline. Safe to share between threads: it holds nothing that changes.

    ONNX Runtime answers if it was seen to agree with scikit-learn (`dosel.predictor.proof`): the same label for each
    trial row, no probability further off than 1e-6. Where two classes are nearer to each other than that, the
    model itself is asked, so that rounding never decides a label.

    Args:
        onnx: the classifier's ONNX form from an earlier proof of this same model, which is then trusted.

    Raises:
        RegistryError: the model knows a class that the use case does not declare.
    """

    def __init__(self, use_case: UseCase, model: Any, onnx: bytes | None = None) -> None:
        self.use_case = use_case
        self._model = model
        self.classes = tuple(int(code) for code in model.classes_)
        labels = use_case.target.labels
        if unknown := [code for code in self.classes if code not in labels]:
            raise RegistryError(f"it answers classes that {use_case.name} does not declare: {unknown}")
        self.names = tuple(labels[code] for code in self.classes)
        self._code_of = [{value: i for i, value in enumerate(c.values)} for c in use_case.categories]
        self._encoder: Encoder | None = None
        self._compiled: Compiled | None = None
        self.fallback = ""
        """Why scikit-learn answers; "" if ONNX Runtime does."""
        self._choose(onnx)
        if self.fallback:
            log.warning("%s: scikit-learn answers, which is slow: %s", use_case.name, self.fallback)

    @property
    def form(self) -> Form:
        return "scikit-learn" if self._compiled is None else "onnx"

    @property
    def model(self) -> Any:
        """The fitted pipeline."""
        return self._model

    @property
    def onnx(self) -> bytes | None:
        """The proven ONNX form, to be kept beside the model; None if scikit-learn answers."""
        return self._compiled.onnx if self._compiled else None

    def predict(self, rows: Iterable[Mapping[str, Any]]) -> list[Prediction]:
        """One answer a row, in order. Rows hold every feature; a category's value that is not declared is unknown."""
        listed = list(rows)
        numbers = np.array([[row[n.name] for n in self.use_case.numbers] for row in listed], dtype=np.float64)
        categories = list(zip(self.use_case.categories, self._code_of, strict=True))
        codes = np.array([[codes.get(row[c.name], -1) for c, codes in categories] for row in listed], dtype=np.intp)
        scores = self.scores(numbers.reshape(len(listed), -1), codes.reshape(len(listed), -1))
        return [self._prediction(i, row) for i, row in zip(scores.chosen, scores.probabilities.tolist(), strict=True)]

    def one(self, numbers: Sequence[float], codes: Sequence[int]) -> Prediction:
        """The answer for one row, in microseconds. `numbers` and `codes` are as in `scores`, for one row."""
        row, known = np.array([numbers], dtype=np.float64), np.array([codes], dtype=np.intp)
        if self._compiled is not None and self._encoder is not None and isfinite(sum(numbers)):
            found = self._compiled.probabilities(self._encoder.encode(row, known, np.float32))[0].tolist()
            best = max(found)
            # On seven numbers Python is faster than numpy; another class within reach is left to `scores`.
            if sum(best - p < 2 * TOLERANCE for p in found) == 1:
                return self._prediction(found.index(best), found)
        scores = self.scores(row, known)
        return self._prediction(int(scores.chosen[0]), scores.probabilities[0].tolist())

    def scores(self, numbers: Floats, codes: Codes) -> Scores:
        """The answers for many rows.

        Args:
            numbers: of shape (rows, declared numbers), in declared order.
            codes: each category's place in its declared values, of shape (rows, declared categories); -1 if unknown.

        Raises:
            ValueError: a number is missing (NaN) and the model cannot do without.
        """
        if self._compiled is None or self._encoder is None:
            return _chosen(self._exact(numbers, codes))
        if not np.isfinite(numbers).all():
            # What is missing is the model's own affair; comparing with NaN in two libraries is not the same.
            return _chosen(self._exact(numbers, codes))
        found = self._compiled.probabilities(self._encoder.encode(numbers, codes, np.float32)).astype(np.float64)
        scores = _chosen(found)
        if found.shape[1] > 1:
            best = np.partition(found, -2, axis=1)
            near = best[:, -1] - best[:, -2] < 2 * TOLERANCE
            if near.any():
                scores.chosen[near] = self._exact(numbers[near], codes[near]).argmax(axis=1)
        return scores

    def matrix(self, rows: Iterable[Mapping[str, Any]]) -> Floats:
        """Rows as numbers, of shape (rows, features): a category as its value's place, -1 if that is unknown."""
        known = iter(self._code_of)
        codes_of = [None if isinstance(feature, Number) else next(known) for feature in self.use_case.features]
        read = list(zip(self.use_case.feature_names, codes_of, strict=True))
        listed = [[row[name] if codes is None else codes.get(row[name], -1) for name, codes in read] for row in rows]
        return np.array(listed, dtype=np.float64).reshape(-1, len(read))

    def probabilities(self, matrix: Floats) -> Floats:
        """What `scores` has as probabilities, for rows as `matrix` gives them."""
        is_number = np.array([isinstance(feature, Number) for feature in self.use_case.features])
        numbers, codes = matrix[:, is_number], matrix[:, ~is_number].astype(np.intp)
        if self._compiled is None or self._encoder is None or not np.isfinite(numbers).all():
            return self._exact(numbers, codes)
        return self._compiled.probabilities(self._encoder.encode(numbers, codes, np.float32)).astype(np.float64)

    def _prediction(self, best: int, probabilities: list[float]) -> Prediction:
        rounded = [round(p, DECIMALS) for p in probabilities]
        return Prediction(self.classes[best], self.names[best], dict(zip(self.names, rounded, strict=True)))

    def _exact(self, numbers: Floats, codes: Codes) -> Floats:
        """What scikit-learn answers: probabilities of shape (rows, classes)."""
        if self._encoder is not None:
            found: Floats = self._model[-1].predict_proba(self._encoder.encode(numbers, codes))
            return found
        found = self._model.predict_proba(self._frame(numbers, codes))
        return found

    def _frame(self, numbers: Floats, codes: Codes) -> Any:
        import pandas as pd

        columns: dict[str, Any] = {n.name: numbers[:, i] for i, n in enumerate(self.use_case.numbers)}
        for i, category in enumerate(self.use_case.categories):
            # An unknown value has to be some text that is not declared.
            columns[category.name] = np.array([*category.values, ""], dtype=object)[codes[:, i]]
        return pd.DataFrame(columns)[list(self.use_case.feature_names)]

    def _choose(self, onnx: bytes | None) -> None:
        """Settles on the fastest form that agrees with the model."""
        try:
            encoder = Encoder(self.use_case, self._model[:-1][0] if len(self._model) == 2 else self._model[:-1])
        except (NotEncodable, TypeError, AttributeError) as error:
            self.fallback = f"its preprocessing cannot be taken over ({error})"
            return
        if onnx is not None:
            self._encoder, self._compiled = encoder, Compiled(onnx)
            return
        candidate: Compiled | None = None
        try:
            candidate = compiled(self._model[-1], encoder.width)
        except Exception as error:  # noqa: BLE001  skl2onnx raises whatever it likes; scikit-learn still answers
            self.fallback = f"skl2onnx cannot convert {type(self._model[-1]).__name__} ({str(error).splitlines()[0]})"
        numbers, codes = trial_rows(self.use_case, encoder, candidate)
        truth = self._model.predict_proba(self._frame(numbers, codes))
        if not np.array_equal(self._model[:-1].transform(self._frame(numbers, codes)), encoder.encode(numbers, codes)):
            self.fallback = "its preprocessing gives other numbers when taken over"
            return
        self._encoder = encoder
        if candidate is None:
            return
        self._compiled = candidate
        found = self.scores(numbers, codes)
        furthest = float(np.abs(found.probabilities - truth).max())
        differ = int((found.chosen != truth.argmax(axis=1)).sum())
        if differ or not furthest <= TOLERANCE:
            self._compiled = None
            self.fallback = (
                f"in ONNX, {differ} of {len(numbers)} trial rows get another label, and probabilities are off by "
                f"{furthest:.1e}"
            )
            return
        log.info("%s: ONNX agrees on %d trial rows, to %.1e", self.use_case.name, len(numbers), furthest)


def _chosen(probabilities: Floats) -> Scores:
    # The most probable class is what scikit-learn's own predict answers.
    return Scores(probabilities.argmax(axis=1), probabilities)
