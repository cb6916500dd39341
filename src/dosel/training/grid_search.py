"""scikit-learn's grid search for less work: the same candidates and scores, with a callback for each."""

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import joblib
from sklearn import model_selection
from sklearn.base import clone, is_classifier
from sklearn.model_selection import ParameterGrid, check_cv
from sklearn.utils import indexable

from dosel.training.candidates import CandidateCallback, Figures, ScoredCandidate, figures_at, plain
from dosel.training.fan_out import Engine, SearchJob, Task, Threads
from dosel.training.strategies import Params, strategy
from dosel.usecases import StrategyName


class GridSearchCV(model_selection.GridSearchCV):  # type: ignore[misc]
    """Preprocesses once per fold instead of once per candidate, and fits candidates by a strategy.

    The estimator is a pipeline whose grid varies only its last step. Candidates, folds, scores, ranks and the
    refitted model are scikit-learn's own. Only times in `cv_results_` differ: a model that came as part of another
    has NaN. `engine` scores the candidates; without one, `n_jobs` threads do.
    """

    on_candidate: CandidateCallback | None = None
    engine: Engine | None = None
    strategy: StrategyName = "each"

    def fit(self, X: Any, y: Any = None) -> "GridSearchCV":
        """Search and refit, as the parent does."""
        self._scores: list[float] = []
        X, y = indexable(X, y)
        self.scorer_, metric = self._get_scorers()
        self.multimetric_ = False
        self._checked_cv_orig = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        self.cv_results_ = self._score_all(X, y)
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

    def _score_all(self, X: Any, y: Any) -> dict[str, Any]:
        """`cv_results_`; the callback is called for each group of candidates when the last of its folds is scored."""
        candidates = list(ParameterGrid(self.param_grid))
        name, model = self.estimator.steps[-1]
        bare = [{key.removeprefix(f"{name}__"): value for key, value in c.items()} for c in candidates]
        plan = strategy(self.strategy, model, bare)
        groups = plan.groups(model, bare)
        job = SearchJob(self.estimator[:-1], model, plan, self.scorer_, self._checked_cv_orig)
        out: list[dict[int, Figures]] = [{} for _ in candidates]
        with (self.engine or Threads(self.n_jobs)).folds(job, X, y) as folds:
            self.n_splits_ = folds.count
            tasks = [
                Task(number, fold, [bare[i] for i in group])
                for number, group in enumerate(groups)
                for fold in range(folds.count)
            ]
            for task, of_task in folds.score(tasks):
                group = groups[task.group]
                for i, figures in zip(group, of_task, strict=True):
                    out[i][task.fold] = figures
                if len(out[group[0]]) == folds.count:
                    results = self._results([candidates[i] for i in group], [out[i] for i in group])
                    for index, i in enumerate(group):
                        cpu_seconds = sum(figures["cpu_time"] for figures in out[i].values())
                        self._report(i, len(candidates), candidates[i], results, index, cpu_seconds)
        return self._results(candidates, out)

    def _results(self, candidates: Sequence[Params], out: Sequence[Mapping[int, Figures]]) -> dict[str, Any]:
        """`cv_results_` of these candidates, from their figures by fold."""
        flat = [of_candidate[fold] for of_candidate in out for fold in range(self.n_splits_)]
        return dict(self._format_results(candidates, self.n_splits_, flat))

    def _report(
        self, i: int, of: int, params: Params, results: Mapping[str, Any], index: int, cpu_seconds: float
    ) -> None:
        """Report candidate `i`, which is at `index` of `results`; its rank is known only after the last one."""
        if self.on_candidate is None:
            return
        figures = figures_at(results, index)
        score = float(results["mean_test_score"][index])
        self._scores.append(score)
        self.on_candidate(
            ScoredCandidate(
                number=i + 1,
                of=of,
                done=len(self._scores),
                params=plain(params),
                score=score,
                best=max(self._scores),
                metrics=figures,
                cpu_seconds=cpu_seconds,
            )
        )
