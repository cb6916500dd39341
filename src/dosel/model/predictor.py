"""Answers with a model: by ONNX Runtime if it gives the same answers as scikit-learn, otherwise by scikit-learn."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from threading import Lock
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dosel.errors import RegistryError
from dosel.model.encoding import Encoder, FittedSteps, NotEncodable, StoredEncoder, fitted_steps
from dosel.model.onnx.classifier import OnnxClassifier, conversions
from dosel.model.parity import TOLERANCE, ParityResult, compare, trial_rows
from dosel.rows.columns import Codes, Columns, Floats
from dosel.usecases import UseCase

Backend = Literal["onnx", "scikit-learn"]

log = logging.getLogger(__name__)


class ScikitLearnDecides(Exception):
    """scikit-learn has to decide a row, which takes milliseconds, or seconds if its model is not in memory yet."""


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

    def __getitem__(self, places: slice) -> "Scores":
        return Scores(self.chosen[places], self.probabilities[places])


class Predictor:
    """Answers with a fitted pipeline. Threads may share it.

    ONNX Runtime answers if it passed the parity check (`dosel.model.parity`): the same label for each trial row, and
    probabilities that differ by at most 1e-6. If the probabilities of a row's two best classes differ by less than
    twice that, scikit-learn answers the row, so that rounding never decides a label.

    Args:
        onnx: the classifier as ONNX, if this model passed the parity check before.
        fallback_reason: why scikit-learn answers, if this model failed the parity check before.

    Raises:
        RegistryError: the model knows a class that the use case does not declare.
    """

    def __init__(self, use_case: UseCase, model: Any, onnx: bytes | None = None, fallback_reason: str = "") -> None:
        self._prepare(use_case, model.classes_, partial(_same, model))
        self._choose(onnx, fallback_reason)
        self._warn()

    @classmethod
    def stored(
        cls, use_case: UseCase, encoder: StoredEncoder, onnx: bytes, read_model: Callable[[], Any]
    ) -> "Predictor":
        """A predictor of a model that passed the parity check, without the model.

        Args:
            read_model: gives the fitted pipeline, once something needs it: a near tie, or an explanation.

        Raises:
            RegistryError: the model knows a class that the use case does not declare.
        """
        made = cls.__new__(cls)
        made._prepare(use_case, encoder.classes, read_model)
        made._encoder, made._compiled = Encoder(use_case, encoder.steps), OnnxClassifier(onnx)
        return made

    def _prepare(self, use_case: UseCase, classes: Iterable[int], read_model: Callable[[], Any]) -> None:
        self.use_case = use_case
        self._read_model = read_model
        self._reading = Lock()
        self._kept: Any = None
        self.classes = tuple(int(code) for code in classes)
        labels = use_case.target.labels
        if unknown := [code for code in self.classes if code not in labels]:
            raise RegistryError(f"the model answers classes that {use_case.name} does not declare: {unknown}")
        self.names = tuple(labels[code] for code in self.classes)
        self._encoder: Encoder | None = None
        self._compiled: OnnxClassifier | None = None
        self.fallback_reason = ""
        """Why scikit-learn answers; "" if ONNX Runtime does."""
        self.parity: ParityResult | None = None
        """The result of the last parity check; None if there was none."""

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy for another process; it has what reads the model, or the model itself if scikit-learn answers."""
        if self._compiled is None or self._encoder is None:
            return Predictor, (self.use_case, self.model, None, self.fallback_reason)
        encoder = StoredEncoder(list(self.classes), self._encoder.steps)
        return Predictor.stored, (self.use_case, encoder, self._compiled.onnx, self._read_model)

    @property
    def backend(self) -> Backend:
        return "scikit-learn" if self._compiled is None else "onnx"

    @property
    def model(self) -> Any:
        """The fitted pipeline; the first use may take seconds."""
        with self._reading:
            if self._kept is None:
                self._kept = self._read_model()
            return self._kept

    @property
    def steps(self) -> FittedSteps | None:
        """The preprocessing as values, if it gives the same numbers; otherwise None."""
        return self._encoder.steps if self._encoder else None

    @property
    def onnx(self) -> bytes | None:
        """The classifier as ONNX, to be stored beside the model; None if scikit-learn answers."""
        return self._compiled.onnx if self._compiled else None

    def predict(self, rows: Iterable[Mapping[str, Any]]) -> list[Prediction]:
        """The answers for rows that have every feature, in order; undeclared values of categories are unknown."""
        columns = Columns.of_rows(self.use_case, rows)
        scores = self.scores(columns.numbers, columns.codes)
        return [self._prediction(i, row) for i, row in zip(scores.chosen, scores.probabilities.tolist(), strict=True)]

    def one(self, numbers: Sequence[float], codes: Sequence[int], wait: bool = True) -> Prediction:
        """The answer for one row, in microseconds. `numbers` and `codes` are as in `scores`, for one row.

        Args:
            wait: whether the caller waits if scikit-learn has to decide.

        Raises:
            ScikitLearnDecides: it has to, and the caller does not wait.
        """
        if (found := self.together([(numbers, codes)])[0]) is not None:
            return found
        if not wait:
            raise ScikitLearnDecides
        scores = self.scores(np.array([numbers], np.float64), np.array([codes], np.intp))
        return self._prediction(int(scores.chosen[0]), scores.probabilities[0].tolist())

    def together(self, rows: Sequence[tuple[Sequence[float], Sequence[int]]]) -> list[Prediction | None]:
        """The answers for some rows, each as in `one`; None for a row that scikit-learn has to decide."""
        compiled, encoder = self._compiled, self._encoder
        if compiled is None or encoder is None:
            return [None] * len(rows)
        numbers, codes = np.array([n for n, _ in rows], np.float64), np.array([c for _, c in rows], np.intp)
        found = compiled.probabilities(encoder.encode(numbers, codes, compiled.dtype)).tolist()
        # The two libraries compare NaN in different ways.
        return [
            self._clear(probabilities) if encoder.fills or isfinite(sum(row[0])) else None
            for row, probabilities in zip(rows, found, strict=True)
        ]

    def _clear(self, probabilities: list[float]) -> Prediction | None:
        """The answer, if no other class is nearly as probable as the best one."""
        best = max(probabilities)
        # On seven numbers Python is faster than numpy.
        if sum(best - p < 2 * TOLERANCE for p in probabilities) == 1:
            return self._prediction(probabilities.index(best), probabilities)
        return None

    def scores(self, numbers: Floats, codes: Codes) -> Scores:
        """The answers for many rows.

        Args:
            numbers: of shape (rows, declared numbers), in declared order.
            codes: each category's place in its declared values, of shape (rows, declared categories); -1 if unknown.

        Raises:
            ValueError: a number is missing (NaN), and the model has no imputer.
        """
        found = self._fast(numbers, codes)
        if found is None:
            return _chosen(self._exact(numbers, codes))
        scores = _chosen(found)
        if found.shape[1] > 1:
            best = np.partition(found, -2, axis=1)
            near = best[:, -1] - best[:, -2] < 2 * TOLERANCE
            if near.any():
                scores.chosen[near] = self._exact(numbers[near], codes[near]).argmax(axis=1)
        return scores

    def at(self, scores: Scores, place: int) -> Prediction:
        """The answer for the row at a place of `scores`."""
        return self._prediction(int(scores.chosen[place]), scores.probabilities[place].tolist())

    def shown(self, scores: Scores) -> Floats:
        """The probabilities as answers give them, of the same shape."""
        return scores.probabilities.round(self.use_case.decimals)

    def matrix(self, rows: Iterable[Mapping[str, Any]]) -> Floats:
        """Rows as numbers, of shape (rows, features): a category as its value's place, -1 if that is unknown."""
        return Columns.of_rows(self.use_case, rows).matrix(self.use_case)

    def probabilities(self, matrix: Floats, by: Backend = "onnx") -> Floats:
        """Probabilities as in `scores`, for rows from `matrix`, by the backend `by` if it can answer them."""
        rows = Columns.of_matrix(self.use_case, matrix)
        found = self._fast(rows.numbers, rows.codes) if by == "onnx" else None
        return self._exact(rows.numbers, rows.codes) if found is None else found

    def encoded(self, matrix: Floats) -> Floats:
        """Rows from `matrix` after the model's preprocessing, of shape (rows, width)."""
        rows = Columns.of_matrix(self.use_case, matrix)
        if self._encoder is not None:
            return self._encoder.encode(rows.numbers, rows.codes)
        found: Floats = np.asarray(self.model[:-1].transform(self._frame(rows.numbers, rows.codes)), np.float64)
        return found

    def _prediction(self, best: int, probabilities: list[float]) -> Prediction:
        decimals = self.use_case.decimals
        rounded = [round(p, decimals) for p in probabilities]
        return Prediction(self.classes[best], self.names[best], dict(zip(self.names, rounded, strict=True)))

    def _fast(self, numbers: Floats, codes: Codes) -> Floats | None:
        """ONNX Runtime's probabilities, of shape (rows, classes); None if scikit-learn has to answer."""
        if self._compiled is None or self._encoder is None:
            return None
        if not (self._encoder.fills or np.isfinite(numbers).all()):
            # The two libraries compare NaN in different ways.
            return None
        encoded = self._encoder.encode(numbers, codes, self._compiled.dtype)
        return self._compiled.probabilities(encoded).astype(np.float64)

    def _exact(self, numbers: Floats, codes: Codes) -> Floats:
        """scikit-learn's probabilities, of shape (rows, classes)."""
        if self._encoder is not None:
            found: Floats = self.model[-1].predict_proba(self._encoder.encode(numbers, codes))
        else:
            found = self.model.predict_proba(self._frame(numbers, codes))
        return found

    def _frame(self, numbers: Floats, codes: Codes) -> Any:
        from dosel.rows import frames

        # An unknown value has to be some text that is not declared.
        return frames.of_columns(self.use_case, Columns(numbers, codes), missing="")

    def check_parity(self, features: Any) -> ParityResult | None:
        """Repeat the parity check on these rows, such as the holdout; if it fails, scikit-learn answers from now on.

        Args:
            features: rows from `dosel.rows.frames.canonical`.

        Returns:
            The result; None if scikit-learn answers already.
        """
        if self._compiled is None:
            return None
        rows = Columns.of(self.use_case, features)
        self._compare(rows.numbers, rows.codes)
        self._warn()
        return self.parity

    def _choose(self, onnx: bytes | None, known_reason: str) -> None:
        """Choose ONNX Runtime if the classifier can be converted and passes the parity check, else scikit-learn."""
        try:
            fitted = self.model[:-1][0] if len(self.model) == 2 else self.model[:-1]
            encoder = Encoder(self.use_case, fitted_steps(self.use_case, fitted))
        except (NotEncodable, TypeError, AttributeError) as error:
            self.fallback_reason = f"dosel cannot reproduce its preprocessing ({error})"
            return
        if known_reason:
            self._encodes(encoder, *trial_rows(self.use_case, encoder, None))
            self.fallback_reason = self.fallback_reason or known_reason
            return
        if onnx is not None:
            self._encoder, self._compiled = encoder, OnnxClassifier(onnx)
            return
        for convert in conversions(self.model[-1], encoder.width):
            try:
                candidate = convert()
            except Exception as error:  # noqa: BLE001  converters raise whatever they like; scikit-learn still answers
                words = (str(error).splitlines() or [type(error).__name__])[0]
                self.fallback_reason = (
                    self.fallback_reason or f"{type(self.model[-1]).__name__} cannot be converted ({words})"
                )
                continue
            self._encoder, self._compiled, self.fallback_reason = encoder, candidate, ""
            numbers, codes = trial_rows(self.use_case, encoder, candidate)
            if self._encodes(encoder, numbers, codes):
                self._compare(numbers, codes)
            if self._compiled is not None:
                log.info("%s: ONNX agrees on %s", self.use_case.name, self.parity)
                return
        if self._encoder is None:
            # scikit-learn's classifier answers, but the encoder is faster than scikit-learn's preprocessing.
            self._encodes(encoder, *trial_rows(self.use_case, encoder, None))

    def _encodes(self, encoder: Encoder, numbers: Floats, codes: Codes) -> bool:
        """Use the encoder if it gives the same numbers as the model's preprocessing; return whether it does."""
        truth, found = self.model[:-1].transform(self._frame(numbers, codes)), encoder.encode(numbers, codes)
        whole = np.isfinite(numbers).all(axis=1)
        # What an imputer fills in depends, in its last bits, on how many rows it is given at once.
        right = np.array_equal(truth[whole], found[whole]) and np.allclose(truth, found, rtol=1e-9, atol=1e-12)
        self._encoder = encoder if right else None
        if not right:
            self._compiled, self.fallback_reason = None, "dosel's copy of its preprocessing gives other numbers"
        return right

    def _compare(self, numbers: Floats, codes: Codes) -> None:
        """Check parity on these rows; if the check fails, scikit-learn answers."""
        truth = self.model.predict_proba(self._frame(numbers, codes))
        found = self.scores(numbers, codes)
        self.parity = compare(truth, found.probabilities, found.chosen)
        if not self.parity.holds:
            self._compiled, self.fallback_reason = None, f"ONNX differs: {self.parity}"

    def _warn(self) -> None:
        if self.fallback_reason:
            log.warning("%s: scikit-learn answers, which is slow: %s", self.use_case.name, self.fallback_reason)


def _same(model: Any) -> Any:
    return model


def _chosen(probabilities: Floats) -> Scores:
    # The most probable class is what scikit-learn's own predict answers.
    return Scores(probabilities.argmax(axis=1), probabilities)
