"""The search that a family declares, ready to be fitted."""

from typing import Any

from sklearn.model_selection import ParameterGrid, ParameterSampler

from dosel.training.halving import HalvingSearchCV
from dosel.training.preprocessing import CLASSIFIER, pipeline
from dosel.training.search import AnySearch, GridSearchCV
from dosel.training.trials import TrialSearchCV
from dosel.usecases import Family, Range, Space, UseCase


def search_of(use_case: UseCase, family: Family, seed: int, jobs: int, storage: str = "", study: str = "") -> AnySearch:
    """An unfitted search of `family`.

    Args:
        storage: URL of a database in which a search by trials keeps them under the name `study`; "" keeps none.
    """
    model = pipeline(use_case, family.build(seed))
    wanted = family.search
    settings: dict[str, Any] = {"scoring": use_case.gate.metric, "cv": use_case.folds, "n_jobs": jobs}
    match wanted.kind:
        case "optuna":
            trials = TrialSearchCV(
                model, family.space, trials=wanted.trials, minutes=wanted.minutes, random_state=seed, **settings
            )
            trials.storage, trials.study = storage, study
            return trials
        case "halving":
            halving: AnySearch = HalvingSearchCV(
                model, _grid(family.space), factor=wanted.factor, random_state=seed, error_score="raise", **settings
            )
            return halving
        case "random":
            points = list(ParameterSampler(_distributions(family.space), wanted.trials, random_state=seed))
            # Each point is a grid of one, so that what is drawn is searched as a grid is.
            drawn = [{name: [value] for name, value in point.items()} for point in points]
            return _grid_search(model, family, drawn, settings)
        case "grid":
            return _grid_search(model, family, _grid(family.space), settings)


def planned(family: Family) -> int:
    """How many candidates or trials a family's search has, as declared."""
    if family.search.kind in ("optuna", "random"):
        return family.search.trials
    return len(ParameterGrid(_grid(family.space)))


def _grid_search(model: Any, family: Family, grid: Any, settings: dict[str, Any]) -> GridSearchCV:
    search = GridSearchCV(model, grid, error_score="raise", **settings)
    search.strategy = family.strategy
    return search


def _grid(space: Space) -> dict[str, list[Any]]:
    if ranges := [name for name, values in space.items() if isinstance(values, Range)]:
        raise TypeError(f"only points that are drawn can come from a range; name the values of {', '.join(ranges)}")
    return {f"{CLASSIFIER}__{name}": list(values) for name, values in space.items() if not isinstance(values, Range)}


def _distributions(space: Space) -> dict[str, Any]:
    return {f"{CLASSIFIER}__{name}": _drawn(values) for name, values in space.items()}


def _drawn(values: Any) -> Any:
    from scipy.stats import loguniform, randint, uniform

    match values:
        case Range(minimum=low, maximum=high, log=False, integer=True):
            return randint(int(low), int(high) + 1)
        case Range(integer=True):
            raise TypeError("whole numbers by magnitude are drawn by Optuna only; name the values")
        case Range(minimum=low, maximum=high, log=True):
            return loguniform(low, high)
        case Range(minimum=low, maximum=high):
            return uniform(low, high - low)
        case _:
            return list(values)
