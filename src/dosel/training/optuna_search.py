"""Optuna's TPE (Bergstra et al. 2011) as a scikit-learn search: each trial is proposed from those before.

Equal rows and seed give equal trials: a proposal depends only on the seed, the trials that were scored before and
those that were asked for together with it, not on cores, on the order of finishing, or on whether the process was
interrupted. Folds are preprocessed once and scored in parallel.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import inf
from time import perf_counter
from typing import Any

import joblib
import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import check_scoring
from sklearn.utils import indexable

from dosel.training.candidates import CandidateCallback, Figures, ScoredCandidate, figures_at, plain
from dosel.training.fan_out import Engine, Folds, SearchJob, Task, Threads
from dosel.training.optuna_trials import FIGURES, StoredTrials
from dosel.training.preprocessing import CLASSIFIER
from dosel.training.strategies import Each
from dosel.usecases import Range, Space

UNPRUNED = 3
"""Trials that are never pruned, so that later ones have something to be compared with."""


class OptunaSearchCV(BaseEstimator):  # type: ignore[misc]
    """Searches the best parameters of a pipeline's last step.

    Args:
        space: values or a range by parameter.
        trials: the number of trials; `at_once` of them are proposed together.

    Attributes:
        engine: scores the trials; without one, `n_jobs` threads do.
        storage: URL of a database that keeps trials, so that an interrupted search can continue; "" keeps none.
        study: name of the search in that database.
        best_estimator_, best_params_, best_score_, cv_results_: as in scikit-learn's searches. Folds that a pruned
            trial did not have are NaN, and a pruned trial is never the best.
    """

    on_candidate: CandidateCallback | None = None
    engine: Engine | None = None
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
        at_once: int = 1,
        n_jobs: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.estimator = estimator
        self.space = space
        self.scoring = scoring
        self.cv = cv
        self.trials = trials
        self.at_once = at_once
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> "OptunaSearchCV":
        """Run the trials that are missing, then fit the best parameters to all rows."""
        X, y = indexable(X, y)
        self.scorer_ = check_scoring(self.estimator, self.scoring)
        job = SearchJob(self.estimator[:-1], self.estimator.steps[-1][1], Each(), self.scorer_, self.cv)
        made: list[FrozenTrial] = []
        with (self.engine or Threads(self.n_jobs)).folds(job, X, y) as folds:
            for trial in self._run_trials(folds):
                made.append(trial)
                self._report(len(made), trial, made)
        self.cv_results_ = self._results(made, folds.count)
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

    def _run_trials(self, folds: Folds) -> Iterator[FrozenTrial]:
        """Ask for `at_once` trials, score them side by side, give the study their scores in order of asking; repeat.

        The study is in memory and always begins with the first trial, so that proposals depend on nothing else. Trials
        that an interrupted search has stored are proposed again, and not scored again.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED))
        stored = StoredTrials(self.storage, self.study)
        distributions = {name: _distribution(values) for name, values in self.space.items()}
        for begin in range(0, self.trials, self.at_once):
            study.sampler = TPESampler(
                seed=self.random_state + begin, n_startup_trials=UNPRUNED, constant_liar=self.at_once > 1
            )
            asked = [study.ask(distributions) for _ in range(begin, min(begin + self.at_once, self.trials))]
            known = [stored.figures(trial.params) for trial in asked]
            for trial in self._score_trials(study, asked, known, folds):
                stored.add(trial)
                yield trial

    def _score_trials(
        self, study: optuna.Study, asked: Sequence[Trial], known: Sequence[Sequence[Figures]], folds: Folds
    ) -> Iterator[FrozenTrial]:
        """Score trials that were asked for together; those that look poor after their first fold are pruned.

        Whether a trial is pruned is decided before the study gets the first of their scores, so that their order does
        not matter.

        Args:
            known: the figures of each trial's first folds, if an interrupted search has stored them.
        """
        found = {trial.number: dict(enumerate(of)) for trial, of in zip(asked, known, strict=True)}

        def tasks(trials: Iterable[Trial], numbers: range) -> list[Task]:
            return [Task(t.number, i, [t.params]) for t in trials for i in numbers if i not in found[t.number]]

        for task, [figures] in folds.score(tasks(asked, range(1))):
            found[task.group][task.fold] = figures
        for trial in asked:
            trial.report(found[trial.number][0]["test_scores"], step=1)
        pruned = {trial.number for trial in asked if folds.count > 1 and trial.should_prune()}
        promising = [trial for trial in asked if trial.number not in pruned]
        rest = folds.score(tasks(promising, range(1, folds.count)))
        for trial in asked:
            had = found[trial.number]
            while trial.number not in pruned and len(had) < folds.count:
                task, [figures] = next(rest)
                found[task.group][task.fold] = figures
            count = 1 if trial.number in pruned else folds.count
            by_name = {name: [had[i][name] for i in range(count)] for name in had[0]}
            trial.set_user_attr(FIGURES, by_name)
            if trial.number in pruned:
                yield study.tell(trial, state=TrialState.PRUNED)
                continue
            score = float(np.mean(by_name["test_scores"]))
            trial.report(score, step=count)
            yield study.tell(trial, score)

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
            ScoredCandidate(
                number=number,
                of=self.trials,
                done=number,
                params=params,
                score=float(np.mean(had)),
                best=best,
                metrics=figures,
                pruned=pruned,
                cpu_seconds=sum(trial.user_attrs[FIGURES].get("cpu_time", ())),
            )
        )


def _distribution(values: Sequence[Any] | Range) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution(list(values))
    if values.integer:
        return IntDistribution(int(values.minimum), int(values.maximum), log=values.log)
    return FloatDistribution(values.minimum, values.maximum, log=values.log)
