"""The search that a family declares, ready to be fitted."""

from collections.abc import Mapping
from typing import Any, Protocol

from dosel.training.candidates import CandidateCallback
from dosel.training.fan_out import Engine
from dosel.training.grid_search import GridSearchCV
from dosel.training.optuna_search import OptunaSearchCV
from dosel.training.preprocessing import CLASSIFIER, pipeline
from dosel.usecases import Family, Range, Space, UseCase


class AnySearch(Protocol):
    """A scikit-learn search with a callback for each candidate."""

    on_candidate: CandidateCallback | None
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


def search_of(
    use_case: UseCase, family: Family, seed: int, engine: Engine, storage: str = "", study: str = ""
) -> AnySearch:
    """An unfitted search of `family`.

    Args:
        engine: what scores the candidates; the best one is fitted to all rows in this process.
        storage: URL of a database in which an Optuna search keeps its trials under the name `study`; "" keeps none.
    """
    model = pipeline(use_case, family.build(seed))
    settings: dict[str, Any] = {"scoring": use_case.gate.metric, "cv": use_case.folds, "n_jobs": engine.jobs}
    if family.search.kind == "optuna":
        declared = family.search
        search = OptunaSearchCV(
            model, family.space, trials=declared.trials, at_once=declared.at_once, random_state=seed, **settings
        )
        search.engine, search.storage, search.study = engine, storage, study
        return search
    grid = GridSearchCV(model, grid_of(family.space), error_score="raise", **settings)
    grid.engine, grid.strategy = engine, family.strategy
    return grid


def grid_of(space: Space) -> dict[str, list[Any]]:
    """The space of a family as scikit-learn's grid over the pipeline."""
    if ranges := [name for name, values in space.items() if isinstance(values, Range)]:
        raise TypeError(f"a grid needs lists of values; {', '.join(ranges)} has a range")
    return {f"{CLASSIFIER}__{name}": list(values) for name, values in space.items() if not isinstance(values, Range)}
