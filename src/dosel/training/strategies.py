"""Strategies for fitting the candidates of a search to one fold: each by itself, or several for the cost of one.

Each family declares its strategy. A strategy changes the cost of a search and never a score: if it does not apply,
each candidate is fitted by itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import joblib
import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor

from dosel.training.forest_growth import grow
from dosel.usecases import StrategyName

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Fitted:
    """A fitted model. `seconds` is its fitting time; None if the model is part of another."""

    model: Any
    seconds: float | None


class Strategy(Protocol):
    """A strategy. Candidates are parameters under the model's own names."""

    def groups(self, model: Any, candidates: Sequence[Params]) -> list[list[int]]:
        """Groups of candidates that are fitted together, by position; each candidate is in one group."""

    def prepared(self, features: Any) -> Any:
        """A fold's features in the type that the models work on, so that they are converted once."""

    def fitted(self, model: Any, group: Sequence[Params], features: Any, target: Any) -> Iterator[Fitted]:
        """The models of one group, in its order. `model` is the unfitted one and is left alone."""


class Each:
    """Fits every candidate by itself."""

    def groups(self, model: Any, candidates: Sequence[Params]) -> list[list[int]]:
        return [[i] for i in range(len(candidates))]

    def prepared(self, features: Any) -> Any:
        return features

    def fitted(self, model: Any, group: Sequence[Params], features: Any, target: Any) -> Iterator[Fitted]:
        for params in group:
            started = perf_counter()
            fitted = _with(model, params).fit(features, target)
            yield Fitted(fitted, perf_counter() - started)


class ForestPrefixes:
    """Fits forests that differ only in their number of trees once, with the largest number.

    scikit-learn seeds the trees of a forest one after the other from `random_state`. With a fixed seed, the first n
    trees of a forest are therefore the forest of n trees.
    """

    def groups(self, model: Any, candidates: Sequence[Params]) -> list[list[int]]:
        groups: dict[str, list[int]] = {}
        for i, params in enumerate(candidates):
            rest = {name: value for name, value in params.items() if name != "n_estimators"}
            groups.setdefault(joblib.hash(rest), []).append(i)
        return list(groups.values())

    def prepared(self, features: Any) -> Any:
        # Trees compare float32 values: the forest would convert the features in each fit.
        return np.ascontiguousarray(features, dtype=np.float32) if isinstance(features, np.ndarray) else features

    def fitted(self, model: Any, group: Sequence[Params], features: Any, target: Any) -> Iterator[Fitted]:
        sizes = [_with(model, params).n_estimators for params in group]
        whole = max(range(len(group)), key=sizes.__getitem__)
        started = perf_counter()
        forest = grow(_with(model, group[whole]), features, target)
        seconds = perf_counter() - started
        votes = _Votes(forest)
        for i, size in enumerate(sizes):
            yield Fitted(_cut(forest, size, votes), seconds if i == whole else None)

    @staticmethod
    def applies(model: Any, candidates: Sequence[Params]) -> bool:
        """Whether every candidate is a forest whose trees depend only on its seed."""
        return isinstance(model, _FORESTS) and all(_grows_by_seed(_with(model, params)) for params in candidates)


_FORESTS = (RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier, ExtraTreesRegressor)


def strategy(name: StrategyName, model: Any, candidates: Sequence[Params]) -> Strategy:
    """The declared strategy, or `Each` if the declared one would change scores."""
    return ForestPrefixes() if name == "forest_prefixes" and ForestPrefixes.applies(model, candidates) else Each()


def _with(model: Any, params: Params) -> Any:
    return clone(model).set_params(**clone(dict(params), safe=False))


def _grows_by_seed(forest: Any) -> bool:
    size, seed = forest.n_estimators, forest.random_state
    whole = isinstance(size, int) and size > 0
    return whole and isinstance(seed, int) and not forest.warm_start and not forest.oob_score


def _cut(forest: Any, size: int, votes: "_Votes") -> Any:
    part = copy(forest)
    part.n_estimators = size
    part.estimators_ = forest.estimators_[:size]
    if is_classifier(forest):
        part.predict_proba = lambda features: votes.of_first(size, features)
    return part


class _Votes:
    """Sums the votes of a forest's trees in their order, so that a larger forest continues a smaller one's sum."""

    def __init__(self, forest: Any) -> None:
        self._trees = forest.estimators_
        self._features: Any = None
        self._counted = 0
        self._sum: Any = 0.0

    def of_first(self, size: int, features: Any) -> Any:
        """`predict_proba` of the forest of the first `size` trees."""
        if features is not self._features or size < self._counted:
            self._features, self._counted, self._sum = features, 0, 0.0
        is_checked = isinstance(features, np.ndarray) and features.dtype == np.float32
        for tree in self._trees[self._counted : size]:
            self._sum = self._sum + tree.predict_proba(features, check_input=not is_checked)
        self._counted = size
        return self._sum / size
