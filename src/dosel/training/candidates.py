"""Candidates of a search: their folds, their scores, and the callback that is called for each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from time import perf_counter, thread_time
from typing import Any

from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing

from dosel.training.preprocessing import CLASSIFIER
from dosel.training.strategies import Params, Strategy


@dataclass(frozen=True)
class ScoredCandidate:
    """A candidate after its folds.

    Attributes:
        number: its position in the search, from 1; candidates need not come in that order.
        of: the number of candidates.
        done: the number of candidates scored so far, this one included.
        score: mean over the folds; `best` is the best of those done.
        metrics: its entries of `cv_results_`, times in seconds, without those that are NaN.
        pruned: whether it was given up before its last fold; its score is then that of the folds it had.
        cpu_seconds: processor time of its folds, in the threads that scored them.
    """

    number: int
    of: int
    done: int
    params: Mapping[str, Any]
    score: float
    best: float
    metrics: Mapping[str, float]
    pruned: bool = False
    cpu_seconds: float = 0.0


CandidateCallback = Callable[[ScoredCandidate], None]

Figures = dict[str, float]
"""A candidate's figures on one fold: `test_scores`, and `fit_time`, `score_time` and `cpu_time` in seconds."""


@dataclass(frozen=True)
class Fold:
    """A fold's rows after the preprocessing that was fitted to its training part; times in seconds."""

    train: tuple[Any, Any]
    test: tuple[Any, Any]
    fit_seconds: float
    transform_seconds: float


def prepare_fold(preprocessing: Pipeline, plan: Strategy, X: Any, y: Any, train: Any, test: Any) -> Fold:
    """Preprocess a fold once, for all candidates that are fitted on it."""
    steps = clone(preprocessing)
    y_train, y_test = _safe_indexing(y, train), _safe_indexing(y, test)
    started = perf_counter()
    x_train = plan.prepared(steps.fit_transform(_safe_indexing(X, train), y_train))
    fitted = perf_counter()
    x_test = plan.prepared(steps.transform(_safe_indexing(X, test)))
    return Fold((x_train, y_train), (x_test, y_test), fitted - started, perf_counter() - fitted)


def score_fold(plan: Strategy, model: Any, group: Sequence[Params], fold: Fold, scorer: Any) -> list[Figures]:
    """Score a group of candidates on one fold. Times include the fold's preprocessing, as in a whole pipeline."""
    figures = []
    cpu = thread_time()
    for fitted in plan.fitted(model, group, *fold.train):
        started = perf_counter()
        score = float(scorer(fitted.model, *fold.test))
        seconds = perf_counter() - started
        before, cpu = cpu, thread_time()
        figures.append(
            {
                "test_scores": score,
                "fit_time": nan if fitted.seconds is None else fold.fit_seconds + fitted.seconds,
                "score_time": fold.transform_seconds + seconds,
                "cpu_time": cpu - before,
            }
        )
    return figures


def figures_at(results: Mapping[str, Any], index: int) -> dict[str, float]:
    """A candidate's figures in `cv_results_`, without those that are NaN."""
    return {
        name: float(values[index])
        for name, values in results.items()
        if name.startswith(("mean_", "std_", "split")) and not isnan(values[index])
    }


def plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters under the names that the declaration gives them."""
    return {name.removeprefix(f"{CLASSIFIER}__"): value for name, value in params.items()}
