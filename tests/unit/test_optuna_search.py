"""The Optuna search: reproducible, resumable, with pruning."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from dosel.training.candidates import ScoredCandidate
from dosel.training.fan_out import Folds, SearchJob, Threads
from dosel.training.grid_search import GridSearchCV
from dosel.training.optuna_search import OptunaSearchCV
from dosel.training.search import search_of
from dosel.usecases import Family, Range, Search, Space
from dosel.usecases.covertype import COVERTYPE

SPACE: Space = {
    "max_depth": Range(1, 12, integer=True),
    "criterion": ("gini", "entropy"),
    "ccp_alpha": Range(1e-5, 0.5, log=True),
}


@pytest.fixture(scope="module")
def rows() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 4))
    return features, (features[:, 0] * features[:, 1] > 0).astype(int) + (features[:, 2] > 1)


class Backwards(Threads):
    """Threads whose last task is the first to be finished."""

    @contextmanager
    def folds(self, job: SearchJob, X: Any, y: Any) -> Iterator[Folds]:
        with super().folds(job, X, y) as folds:
            forwards = folds.score
            folds.score = lambda tasks: reversed(list(forwards(tasks)))  # type: ignore[method-assign]
            yield folds


class Counting(Threads):
    """Threads that count the tasks."""

    tasks = 0

    @contextmanager
    def folds(self, job: SearchJob, X: Any, y: Any) -> Iterator[Folds]:
        with super().folds(job, X, y) as folds:
            score = folds.score

            def counted(tasks: Any) -> Any:
                self.tasks += len(tasks)
                return score(tasks)

            folds.score = counted  # type: ignore[method-assign]
            yield folds


def searched(
    rows: tuple[Any, Any],
    trials: int,
    folder: Path | None = None,
    callback: Any = None,
    jobs: int = 1,
    at_once: int = 1,
    engine: Any = None,
) -> Any:
    model = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0))
    model.steps[-1] = ("classifier", model.steps[-1][1])
    search = OptunaSearchCV(
        model, SPACE, scoring="accuracy", cv=3, trials=trials, at_once=at_once, n_jobs=jobs, random_state=7
    )
    search.engine = engine
    search.storage = f"sqlite:///{folder / 'studies.db'}" if folder else ""
    search.on_candidate = callback
    return search.fit(*rows)


def shown(search: Any) -> list[tuple[dict[str, Any], float]]:
    return list(zip(search.cv_results_["params"], np.nan_to_num(search.cv_results_["mean_test_score"]), strict=True))


def test_the_trials_depend_on_the_seed_and_not_on_the_cores(rows: tuple[Any, Any]) -> None:
    one, other = searched(rows, 8), searched(rows, 8, jobs=2)
    assert shown(one) == shown(other)
    assert one.best_params_ == other.best_params_


@pytest.mark.parametrize("at_once", [2, 4, 8])
def test_trials_do_not_depend_on_the_order_of_finishing(at_once: int, rows: tuple[Any, Any]) -> None:
    expected = searched(rows, 12, at_once=at_once)
    assert shown(searched(rows, 12, at_once=at_once, engine=Backwards(1))) == shown(expected)
    assert shown(searched(rows, 12, at_once=at_once, jobs=3)) == shown(expected)
    # The first proposals know of no score; later ones know less than if each had waited for the one before.
    assert shown(searched(rows, 12)) != shown(expected)


@pytest.mark.parametrize("at_once", [1, 3, 4])
def test_an_interrupted_search_resumes_with_the_same_result(
    at_once: int, rows: tuple[Any, Any], tmp_path: Path
) -> None:
    """The search is interrupted within trials, and does not score the stored ones again."""

    def ends(scored: ScoredCandidate) -> None:
        if scored.number == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searched(rows, 8, tmp_path, ends, at_once=at_once)
    scored: list[ScoredCandidate] = []
    engine = Counting(1)
    resumed = searched(rows, 8, tmp_path, scored.append, at_once=at_once, engine=engine)
    whole = Counting(1)
    assert shown(resumed) == shown(searched(rows, 8, at_once=at_once, engine=whole))
    assert engine.tasks < whole.tasks
    assert [candidate.number for candidate in scored] == list(range(1, 9))


def test_an_unfinished_trial_is_not_counted(rows: tuple[Any, Any], tmp_path: Path) -> None:
    import optuna

    study = optuna.create_study(
        storage=f"sqlite:///{tmp_path / 'studies.db'}", study_name="search", direction="maximize"
    )
    study.ask()
    assert shown(searched(rows, 4, tmp_path)) == shown(searched(rows, 4))


def test_pruned_trials_are_never_the_best(rows: tuple[Any, Any]) -> None:
    scored: list[ScoredCandidate] = []
    search = searched(rows, 20, callback=scored.append)
    pruned = [candidate for candidate in scored if candidate.pruned]
    assert pruned
    assert not any(candidate.number - 1 == search.best_index_ for candidate in pruned)
    for candidate in pruned:
        assert "split1_test_score" not in candidate.metrics
    scores = search.cv_results_["mean_test_score"]
    assert np.isnan(scores).sum() == len(pruned)
    assert search.best_score_ == np.nanmax(scores) == scored[-1].best


def test_a_trials_score_equals_that_of_scikit_learn(rows: tuple[Any, Any]) -> None:
    from sklearn.model_selection import cross_val_score

    search = searched(rows, 4)
    for params, score in shown(search)[:3]:
        expected = cross_val_score(search.estimator.set_params(**params), *rows, cv=3, scoring="accuracy").mean()
        assert score == pytest.approx(expected, abs=1e-12)


def neighbours(seed: int) -> Any:
    return KNeighborsClassifier()


DECLARED: dict[str, tuple[Search, type[Any], Callable[[int], bool]]] = {
    "grid": (Search("grid"), GridSearchCV, lambda count: count == 6),
    "optuna": (Search("optuna", trials=4), OptunaSearchCV, lambda count: count == 4),
}


@pytest.mark.parametrize("kind", DECLARED)
def test_callback_gets_each_candidate(kind: str, received: Any) -> None:
    from dosel.quality import check
    from dosel.rows import frames as canonical

    declared, made, expected = DECLARED[kind]
    table = check(COVERTYPE, received(300), "uci").accepted
    family = Family("knn", neighbours, {"n_neighbors": (1, 5, 9), "weights": ("uniform", "distance")}, search=declared)
    search = search_of(COVERTYPE, family, seed=1, engine=Threads(1))
    assert isinstance(search, made)
    scored: list[ScoredCandidate] = []
    search.on_candidate = scored.append
    search.fit(canonical.canonical(COVERTYPE, table), table["Cover_Type"].to_numpy())
    assert expected(len(scored))
    assert [candidate.number for candidate in scored] == list(range(1, len(scored) + 1))
    assert {"n_neighbors", "weights"} <= scored[0].params.keys()
    assert len(search.cv_results_["params"]) == len(scored)
    assert search.best_estimator_.predict(canonical.frame(COVERTYPE, [COVERTYPE.example]))[0] in range(1, 8)


def test_grid_rejects_a_range() -> None:
    family = Family("knn", neighbours, {"n_neighbors": Range(1, 9, integer=True)})
    with pytest.raises(TypeError, match="n_neighbors has a range"):
        search_of(COVERTYPE, family, seed=1, engine=Threads(1))
