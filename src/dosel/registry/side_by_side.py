"""Two versions side by side, on the same held-out rows: figures with intervals, and where their answers differ."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dosel.closed import BLOCK
from dosel.errors import UntrustedModel
from dosel.registry.card import FEWEST_SHOWN, SCORES
from dosel.registry.evaluations import ModelEvaluation
from dosel.registry.gate import judge
from dosel.registry.intervals import (
    METRICS,
    Classes,
    confusion,
    metric_intervals,
    share_interval,
    shown_difference_interval,
)
from dosel.registry.registry import Registry
from dosel.registry.report import Rule
from dosel.registry.unseen import UnseenRows
from dosel.rows import frames
from dosel.usecases import UseCase

if TYPE_CHECKING:
    import pandas as pd

    from dosel.registry.store import ModelVersion


@dataclass(frozen=True)
class Share:
    """A figure with its interval; without one if there is no method for it."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ComparedFigure:
    """A figure of both versions.

    Attributes:
        slice: of which rows, such as "class Aspen"; "" for all.
        rows: how many they are.
        difference: b minus a.
    """

    name: str
    slice: str
    rows: int
    a: Share
    b: Share
    difference: Share


@dataclass(frozen=True)
class AnswerCount:
    """The number of rows of class `truth` that version a answered with class `a`, and version b with class `b`."""

    truth: str
    a: str
    b: str
    rows: int


@dataclass(frozen=True)
class VersionComparison:
    """Version `a` and version `b` of a model.

    Attributes:
        rows: the held-out rows that neither was trained on; of a closed use case, whole blocks of them, since figures
            before and after one more row would show its class.
        confidence: of the intervals.
        both, only_a, only_b, neither: by which version rows were answered correctly.
        answers: each combination of true class and both answers, most frequent first; None for a closed use case.
        rules: the gate's rules, with b as the challenger of a.
    """

    model: str
    a: int
    b: int
    rows: int
    confidence: float
    figures: tuple[ComparedFigure, ...]
    both: int
    only_a: int
    only_b: int
    neither: int
    answers: tuple[AnswerCount, ...] | None
    rules: tuple[Rule, ...]


def compare(
    registry: Registry,
    use_case: UseCase,
    clean_rows: "Callable[[], Iterable[pd.DataFrame]]",
    numbers: tuple[int, int],
    seed: int,
) -> VersionComparison:
    """Compare two versions of a model. Nothing is recorded: the gate's looks at the holdout stay as they are.

    Args:
        use_case: with the split that is held out now.
        clean_rows: gives all clean rows, part by part, each time that it is called.
        numbers: of version a and version b.

    Raises:
        ModelNotFound: there is no version of that number.
        UntrustedModel: a version cannot be loaded, or cannot answer.
    """
    versions = [registry.version(use_case.model_name, number) for number in numbers]
    rows = UnseenRows(use_case, clean_rows, versions, 1 if use_case.expose_training_rows else BLOCK)
    judged = rows.judged(versions[1], versions[0], registry.ledger.looks(use_case.model_name))
    a, b = (_evaluated(registry, use_case, version, rows) for version in versions)
    report = judge(use_case.gate, use_case.target, judged, b, a, seed)
    truth, one, other = judged.truth, _predicted(a), _predicted(b)
    right_a, right_b = one == truth, other == truth
    figures = _figures(use_case, truth, one, other, seed) if len(truth) else ()
    return VersionComparison(
        use_case.model_name,
        *numbers,
        len(truth),
        use_case.gate.confidence,
        tuple(figures),
        int((right_a & right_b).sum()),
        int((right_a & ~right_b).sum()),
        int((~right_a & right_b).sum()),
        int((~right_a & ~right_b).sum()),
        tuple(_answers(use_case, truth, one, other)) if use_case.expose_training_rows else None,
        report.rules,
    )


def _evaluated(registry: Registry, use_case: UseCase, version: "ModelVersion", rows: UnseenRows) -> ModelEvaluation:
    from dosel.registry.scoring import evaluate_version

    return evaluate_version(registry, use_case, version, (frames.canonical(use_case, p) for p in rows.parts()))


def _predicted(evaluation: ModelEvaluation) -> Classes:
    if evaluation.predicted is None:
        raise UntrustedModel(f"version {evaluation.version} cannot be compared: {evaluation.failure}")
    return evaluation.predicted


def _figures(use_case: UseCase, truth: Classes, a: Classes, b: Classes, seed: int) -> Iterator[ComparedFigure]:
    gate, codes = use_case.gate, np.array(sorted(use_case.target.labels), dtype=np.int64)
    matrices = [confusion(truth, predicted, codes) for predicted in (a, b)]
    intervals = [metric_intervals(gate, matrix, seed) for matrix in matrices]
    for metric, figure in METRICS.items():
        one, other = (Share(float(figure(m)), *found[metric]) for m, found in zip(matrices, intervals, strict=True))
        of_a, of_b = ((answers, found[metric]) for answers, found in zip((a, b), intervals, strict=True))
        low, high = shown_difference_interval(replace(gate, metric=metric), truth, of_b, of_a, codes, seed)
        difference = Share(other.value - one.value, low, high)
        yield ComparedFigure(SCORES[metric], "", len(truth), one, other, difference)
    for place, code in enumerate(codes):
        rows = int((truth == code).sum())
        if rows == 0 or (rows < FEWEST_SHOWN and not use_case.expose_training_rows):
            continue
        one, other = (
            Share(int(m[place, place]) / rows, *share_interval(int(m[place, place]), rows, gate.confidence))
            for m in matrices
        )
        label = f"class {use_case.target.labels[int(code)]}"
        yield ComparedFigure("recall", label, rows, one, other, Share(other.value - one.value))


def _answers(use_case: UseCase, truth: Classes, a: Classes, b: Classes) -> Iterator[AnswerCount]:
    labels = use_case.target.labels
    counts = Counter(zip(truth.tolist(), a.tolist(), b.tolist(), strict=True))
    for (true, one, other), rows in counts.most_common():
        yield AnswerCount(labels[true], labels[one], labels[other], rows)
