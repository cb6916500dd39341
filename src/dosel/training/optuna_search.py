"""Optuna's TPE (Bergstra et al. 2011) as a scikit-learn search: each trial is proposed from those before.

Equal rows and seed give equal trials: they run one after the other, and a proposal depends only on the seed and the
trials before, not on whether the process was interrupted. Folds are preprocessed once and scored in parallel.
"""

import logging
from collections.abc import Sequence
from math import inf
from time import perf_counter
from typing import Any

import joblib
import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import indexable

from dosel.db.engine import engine_arguments
from dosel.training.candidates import (
    CandidateCallback,
    Fold,
    ScoredCandidate,
    figures_at,
    plain,
    prepare_fold,
    score_fold,
)
from dosel.training.preprocessing import CLASSIFIER
from dosel.training.strategies import Each
from dosel.usecases import Range, Space

UNPRUNED = 3
"""Trials that are never pruned, so that later ones have something to be compared with."""

FIGURES = "figures"
"""Attribute of a trial: its figures, a list of each over the folds it had."""

log = logging.getLogger(__name__)


class OptunaSearchCV(BaseEstimator):  # type: ignore[misc]
    """Searches the best parameters of a pipeline's last step.

    Args:
        space: values or a range by parameter.
        trials: the number of trials.

    Attributes:
        storage: URL of a database that keeps trials, so that an interrupted search can continue; "" keeps none.
        study: name of the search in that database.
        best_estimator_, best_params_, best_score_, cv_results_: as in scikit-learn's searches. Folds that a pruned
            trial did not have are NaN, and a pruned trial is never the best.
    """

    on_candidate: CandidateCallback | None = None
    storage: str = ""
    study: str = "search"

    def __init__(
        self,
        estimator: Any,
        space: Space,
        *,
        scoring: str,
        cv: int,
        trials: int,
        n_jobs: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.estimator = estimator
        self.space = space
        self.scoring = scoring
        self.cv = cv
        self.trials = trials
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> "OptunaSearchCV":
        """Run the trials that are missing, then fit the best parameters to all rows."""
        X, y = indexable(X, y)
        self.scorer_ = check_scoring(self.estimator, self.scoring)
        splits = list(check_cv(self.cv, y, classifier=is_classifier(self.estimator)).split(X, y))
        parallel = joblib.Parallel(n_jobs=self.n_jobs, prefer="threads")
        folds = parallel(joblib.delayed(prepare_fold)(self.estimator[:-1], Each(), X, y, *s) for s in splits)
        study = self._open_study()
        made = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
        made = [trial for trial in made if trial.state != TrialState.FAIL]
        if made:
            log.info("%d trials of %s are finished; the search continues from there", len(made), self.study)
        for number, trial in enumerate(made, 1):
            self._report(number, trial, made[:number])
        distributions = {name: _distribution(values) for name, values in self.space.items()}
        while len(made) < self.trials:
            # Seeded by the number of finished trials: the trial after an interrupted one proposes the same.
            study.sampler = TPESampler(seed=self.random_state + len(made), n_startup_trials=UNPRUNED)
            made.append(self._run_trial(study, study.ask(distributions), folds, parallel))
            self._report(len(made), made[-1], made)
        self.cv_results_ = self._results(made, len(folds))
        ranks = self.cv_results_["rank_test_score"].tolist()
        best = min((i for i, trial in enumerate(made) if trial.state == TrialState.COMPLETE), key=ranks.__getitem__)
        self.best_index_ = best
        self.best_score_ = float(self.cv_results_["mean_test_score"][best])
        self.best_params_ = self.cv_results_["params"][best]
        started = perf_counter()
        with joblib.parallel_config(backend="threading", n_jobs=self.n_jobs):
            self.best_estimator_ = clone(self.estimator).set_params(**self.best_params_).fit(X, y)
        self.refit_time_ = perf_counter() - started
        return self

    def score(self, X: Any, y: Any = None) -> float:
        """The best model's score, by the metric of the search."""
        return float(self.scorer_(self.best_estimator_, X, y))

    def _open_study(self) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=_kept_in(self.storage) if self.storage else None,
            study_name=self.study,
            load_if_exists=True,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED),
        )
        for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            # One search at a time has this name, so the process that ran this trial was killed.
            study.tell(trial.number, state=TrialState.FAIL)
        return study

    def _run_trial(
        self, study: optuna.Study, trial: Trial, folds: Sequence[Fold], parallel: joblib.Parallel
    ) -> FrozenTrial:
        """Score a trial; after the first fold it may be pruned."""
        model = self.estimator.steps[-1][1]
        figures: dict[str, list[float]] = {}
        pruned = False
        for some in (folds[:1], folds[1:]):
            found = parallel(
                joblib.delayed(score_fold)(Each(), model, [trial.params], fold, self.scorer_) for fold in some
            )
            for [of_fold] in found:
                for name, value in of_fold.items():
                    figures.setdefault(name, []).append(value)
            trial.report(float(np.mean(figures["test_scores"])), step=len(figures["test_scores"]))
            if len(figures["test_scores"]) < len(folds) and trial.should_prune():
                pruned = True
                break
        trial.set_user_attr(FIGURES, figures)
        if pruned:
            return study.tell(trial, state=TrialState.PRUNED)
        return study.tell(trial, float(np.mean(figures["test_scores"])))

    def _results(self, made: Sequence[FrozenTrial], folds: int) -> dict[str, Any]:
        """`cv_results_`, as scikit-learn would write it for these candidates."""
        results: dict[str, Any] = {}
        for name in ("fit_time", "score_time"):
            values = [trial.user_attrs[FIGURES][name] for trial in made]
            results[f"mean_{name}"] = np.array([np.mean(v) for v in values])
            results[f"std_{name}"] = np.array([np.std(v) for v in values])
        for name in self.space:
            results[f"param_{CLASSIFIER}__{name}"] = np.array([trial.params[name] for trial in made], dtype=object)
        results["params"] = [{f"{CLASSIFIER}__{n}": trial.params[n] for n in self.space} for trial in made]
        scores = np.full((len(made), folds), np.nan)
        for i, trial in enumerate(made):
            had = trial.user_attrs[FIGURES]["test_scores"]
            scores[i, : len(had)] = had
        for fold in range(folds):
            results[f"split{fold}_test_score"] = scores[:, fold]
        complete = np.array([trial.state == TrialState.COMPLETE for trial in made])
        mean = np.where(complete, scores.mean(axis=1), np.nan)
        results["mean_test_score"] = mean
        results["std_test_score"] = np.where(complete, scores.std(axis=1), np.nan)
        # As in scikit-learn, candidates without a score rank last.
        known = np.where(complete, mean, -inf)
        results["rank_test_score"] = rankdata(-known, method="min").astype(np.int32)
        return results

    def _report(self, number: int, trial: FrozenTrial, made: Sequence[FrozenTrial]) -> None:
        if self.on_candidate is None:
            return
        had = trial.user_attrs[FIGURES]["test_scores"]
        best = max((t.value for t in made if t.state == TrialState.COMPLETE and t.value is not None), default=-inf)
        figures = figures_at(self._results([trial], len(had)), 0)
        figures |= {"mean_test_score": float(np.mean(had))}
        pruned = trial.state == TrialState.PRUNED
        params = plain({name: trial.params[name] for name in self.space})
        self.on_candidate(
            ScoredCandidate(number, self.trials, number, params, float(np.mean(had)), best, figures, pruned)
        )


def _kept_in(url: str) -> RDBStorage:
    address, arguments = engine_arguments(url)
    return RDBStorage(address.render_as_string(hide_password=False), engine_kwargs=arguments)


def _distribution(values: Sequence[Any] | Range) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution(list(values))
    if values.integer:
        return IntDistribution(int(values.minimum), int(values.maximum), log=values.log)
    return FloatDistribution(values.minimum, values.maximum, log=values.log)
