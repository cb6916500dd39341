"""scikit-learn's grid search for less work: the same candidates and scores, with a callback for each."""

from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

import joblib
from sklearn import model_selection
from sklearn.base import clone, is_classifier
from sklearn.model_selection import ParameterGrid, check_cv
from sklearn.utils import indexable

from dosel.training.candidates import CandidateCallback, ScoredCandidate, figures_at, plain, prepare_fold, score_fold
from dosel.training.strategies import Params, strategy
from dosel.usecases import StrategyName


class GridSearchCV(model_selection.GridSearchCV):  # type: ignore[misc]
    """Preprocesses once per fold instead of once per candidate, and fits candidates by a strategy.

    The estimator is a pipeline whose grid varies only its last step. Candidates, folds, scores, ranks and the
    refitted model are scikit-learn's own. Only times in `cv_results_` differ: a model that came as part of another
    has NaN. Candidates run in threads: trees are grown outside Python's lock, and a Celery worker may not fork.
    """

    on_candidate: CandidateCallback | None = None
    strategy: StrategyName = "each"

    def fit(self, X: Any, y: Any = None) -> "GridSearchCV":
        """Search and refit, as the parent does."""
        self._scores: list[float] = []
        X, y = indexable(X, y)
        self.scorer_, metric = self._get_scorers()
        self.multimetric_ = False
        self._checked_cv_orig = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        splits = list(self._checked_cv_orig.split(X, y))
        self.n_splits_ = len(splits)
        self.cv_results_ = self._score_all(X, y, splits)
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

    def _score_all(self, X: Any, y: Any, splits: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
        """`cv_results_`; the callback is called for each group of candidates when the last of its folds is scored."""
        candidates = list(ParameterGrid(self.param_grid))
        name, model = self.estimator.steps[-1]
        bare = [{key.removeprefix(f"{name}__"): value for key, value in c.items()} for c in candidates]
        plan = strategy(self.strategy, model, bare)
        groups = plan.groups(model, bare)
        parallel = joblib.Parallel(n_jobs=self.n_jobs, prefer="threads", return_as="generator")
        folds = list(
            parallel(joblib.delayed(prepare_fold)(self.estimator[:-1], plan, X, y, *split) for split in splits)
        )
        scored: Iterator[list[dict[str, float]]] = parallel(
            joblib.delayed(score_fold)(plan, model, [bare[i] for i in group], fold, self.scorer_)
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
            for index, i in enumerate(group):
                self._report(i, len(candidates), candidates[i], results, index)
        flat = [figures for of_candidate in out for figures in of_candidate]
        return dict(self._format_results(candidates, len(folds), flat))

    def _report(self, i: int, of: int, params: Params, results: Mapping[str, Any], index: int) -> None:
        """Report candidate `i`, which is at `index` of `results`; its rank is known only after the last one."""
        if self.on_candidate is None:
            return
        figures = figures_at(results, index)
        score = float(results["mean_test_score"][index])
        self._scores.append(score)
        self.on_candidate(
            ScoredCandidate(i + 1, of, len(self._scores), plain(params), score, max(self._scores), figures)
        )
