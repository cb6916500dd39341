"""scikit-learn's grid search: the same candidates and scores, for less work, and told as it goes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from time import perf_counter
from typing import Any, Protocol

import joblib
from sklearn import model_selection
from sklearn.base import clone, is_classifier
from sklearn.model_selection import ParameterGrid, check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, indexable

from dosel.training.preprocessing import CLASSIFIER
from dosel.training.strategies import Params, Strategy, strategy
from dosel.usecases import StrategyName


@dataclass(frozen=True)
class ScoredCandidate:
    """A candidate after its folds.

    Attributes:
        number: its place in the grid, from 1; candidates need not come in that order.
        of: how many there are.
        done: how many are scored by now, this one counted.
        score: mean over the folds; `best` is the best of those done.
        metrics: what `cv_results_` holds of it, times in seconds; without those that have no meaning for it.
        pruned: whether it was given up before its last fold; its score is then that of the folds it had.
    """

    number: int
    of: int
    done: int
    params: Mapping[str, Any]
    score: float
    best: float
    metrics: Mapping[str, float]
    pruned: bool = False


CandidateCallback = Callable[[ScoredCandidate], None]


class AnySearch(Protocol):
    """What every search here is: an unfitted scikit-learn search with somebody who watches it."""

    watcher: CandidateCallback | None
    estimator: Any
    scoring: str
    n_jobs: int | None
    best_estimator_: Any
    best_params_: Mapping[str, Any]
    best_score_: float
    cv_results_: Mapping[str, Any]

    def fit(self, X: Any, y: Any = None) -> Any: ...

    def score(self, X: Any, y: Any = None) -> float: ...

    def get_params(self, deep: bool = True) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Fold:
    """A fold's rows after the preprocessing that was fitted to its training part; times in seconds."""

    train: tuple[Any, Any]
    test: tuple[Any, Any]
    fit_seconds: float
    transform_seconds: float


class GridSearchCV(model_selection.GridSearchCV):  # type: ignore[misc]
    """Preprocesses once a fold rather than once a candidate, and fits candidates by a strategy.

    Candidates, folds, scores, ranks and the refitted model are scikit-learn's own. What differs in
    `cv_results_` is times: those of a model that came as part of another have no meaning and are NaN.
    Candidates run in threads: trees are grown outside Python's lock, and a Celery worker may not fork.

    That works where the grid varies nothing but the last step of a pipeline; any other search is left to
    the parent, which scores as many candidates at once as there are cores.
    """

    watcher: CandidateCallback | None = None
    strategy: StrategyName = "each"

    def fit(self, X: Any, y: Any = None, **params: Any) -> "GridSearchCV":
        """Searches and refits, as the parent does."""
        self._told: list[float] = []
        if params or not self._varies_last_step_only():
            super().fit(X, y, **params)
            return self
        X, y = indexable(X, y)
        self.scorer_, metric = self._get_scorers()
        self.multimetric_ = False
        self._checked_cv_orig = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        splits = list(self._checked_cv_orig.split(X, y))
        self.n_splits_ = len(splits)
        self.cv_results_ = self._scored(X, y, splits)
        self.best_index_ = self._select_best_index(self.refit, metric, self.cv_results_)
        self.best_score_ = self.cv_results_["mean_test_score"][self.best_index_]
        self.best_params_ = self.cv_results_["params"][self.best_index_]
        best = clone(self.estimator).set_params(**clone(self.best_params_, safe=False))
        started = perf_counter()
        # Trees do not depend on how many are grown at once; the model's own n_jobs stays as it was declared.
        with joblib.parallel_config(backend="threading", n_jobs=self.n_jobs):
            self.best_estimator_ = best.fit(X, y)
        self.refit_time_ = perf_counter() - started
        if hasattr(best, "feature_names_in_"):
            self.feature_names_in_ = best.feature_names_in_
        return self

    def _varies_last_step_only(self) -> bool:
        pipeline = self.estimator
        if not isinstance(pipeline, Pipeline) or len(pipeline.steps) < 2 or pipeline.memory is not None:
            return False
        last = f"{pipeline.steps[-1][0]}__"
        plain_settings = (
            isinstance(self.scoring, str)
            and self.refit is True
            and self.error_score == "raise"
            and not self.return_train_score
            and not self.verbose
        )
        return plain_settings and all(name.startswith(last) for p in ParameterGrid(self.param_grid) for name in p)

    def _scored(self, X: Any, y: Any, splits: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
        """`cv_results_`, with the watcher told of each group of candidates when the last of its folds is in."""
        candidates = list(ParameterGrid(self.param_grid))
        name, model = self.estimator.steps[-1]
        bare = [{key.removeprefix(f"{name}__"): value for key, value in c.items()} for c in candidates]
        plan = strategy(self.strategy, model, bare)
        groups = plan.groups(model, bare)
        parallel = joblib.Parallel(n_jobs=self.n_jobs, prefer="threads", return_as="generator")
        folds = list(
            parallel(joblib.delayed(prepared_fold)(self.estimator[:-1], plan, X, y, *split) for split in splits)
        )
        scored: Iterator[list[dict[str, float]]] = parallel(
            joblib.delayed(scored_on)(plan, model, [bare[i] for i in group], fold, self.scorer_)
            for group in groups
            for fold in folds
        )
        out: list[list[dict[str, float]]] = [[] for _ in candidates]
        for group in groups:
            for _ in folds:
                for i, figures in zip(group, next(scored), strict=True):
                    out[i].append(figures)
            of_group = [figures for i in group for figures in out[i]]
            results = self._format_results([candidates[i] for i in group], len(folds), of_group)
            for place, i in enumerate(group):
                self._tell(i, len(candidates), candidates[i], results, place)
        flat = [figures for of_candidate in out for figures in of_candidate]
        return dict(self._format_results(candidates, len(folds), flat))

    def _run_search(self, evaluate_candidates: Callable[[Any], Mapping[str, Any]]) -> None:
        """What the parent calls when the search is its own."""
        candidates = list(ParameterGrid(self.param_grid))
        step = joblib.effective_n_jobs(self.n_jobs)
        for start in range(0, len(candidates), step):
            results = evaluate_candidates(candidates[start : start + step])
            for i in range(start, min(start + step, len(candidates))):
                self._tell(i, len(candidates), candidates[i], results, i)

    def _tell(self, i: int, of: int, params: Params, results: Mapping[str, Any], place: int) -> None:
        """Reports candidate `i`, which stands at `place` of `results`; its rank is known only when all are in."""
        if self.watcher is None:
            return
        figures = figures_at(results, place)
        score = float(results["mean_test_score"][place])
        self._told.append(score)
        self.watcher(ScoredCandidate(i + 1, of, len(self._told), plain(params), score, max(self._told), figures))


def figures_at(results: Mapping[str, Any], place: int) -> dict[str, float]:
    """A candidate's figures in `cv_results_`, without those that have no meaning for it."""
    return {
        name: float(values[place])
        for name, values in results.items()
        if name.startswith(("mean_", "std_", "split")) and not isnan(values[place])
    }


def plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters under the names the declaration gives them."""
    return {name.removeprefix(f"{CLASSIFIER}__"): value for name, value in params.items()}


def prepared_fold(preprocessing: Pipeline, plan: Strategy, X: Any, y: Any, train: Any, test: Any) -> Fold:
    """A fold, preprocessed once for all that is fitted on it."""
    steps = clone(preprocessing)
    y_train, y_test = _safe_indexing(y, train), _safe_indexing(y, test)
    started = perf_counter()
    x_train = plan.prepared(steps.fit_transform(_safe_indexing(X, train), y_train))
    fitted = perf_counter()
    x_test = plan.prepared(steps.transform(_safe_indexing(X, test)))
    return Fold((x_train, y_train), (x_test, y_test), fitted - started, perf_counter() - fitted)


def scored_on(plan: Strategy, model: Any, group: Sequence[Params], fold: Fold, scorer: Any) -> list[dict[str, float]]:
    """A group's figures on one fold. Times count the fold's preprocessing, as those of a whole pipeline do."""
    figures = []
    for fitted in plan.fitted(model, group, *fold.train):
        started = perf_counter()
        score = float(scorer(fitted.model, *fold.test))
        seconds = perf_counter() - started
        figures.append(
            {
                "test_scores": score,
                "fit_time": nan if fitted.seconds is None else fold.fit_seconds + fitted.seconds,
                "score_time": fold.transform_seconds + seconds,
            }
        )
    return figures
