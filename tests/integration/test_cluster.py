"""Searches on a Dask cluster of real processes: the scores of threads, whatever is killed, or an error in time."""

import dataclasses
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.dask_cluster import LocalDask, local_dask
from dosel.cluster import connection, preflight
from dosel.cluster.connection import Cluster
from dosel.credentials import new_certificate
from dosel.errors import ClusterMismatch, ClusterTaskKilled, ClusterUnavailable
from dosel.model.digest import digest
from dosel.quality import check
from dosel.rows import frames
from dosel.settings import Settings
from dosel.training.candidates import ScoredCandidate
from dosel.training.fan_out import Engine, Threads
from dosel.training.on_cluster import OnCluster
from dosel.training.search import AnySearch, search_of
from dosel.usecases import Family, Range, Search, UseCase
from dosel.usecases.covertype import COVERTYPE
from dosel.usecases.employees import EMPLOYEES
from dosel.usecases.penguins import PENGUINS
from tests.integration.deadly import Deadly

Rows = tuple[pd.DataFrame, Any]

TREES = Family(
    "extra_trees",
    COVERTYPE.families[1].build,
    {"n_estimators": (10, 20), "max_depth": (2, 4, 6, 8), "max_features": (3, 9)},
)
TRIALS = Family(
    "lightgbm",
    COVERTYPE.families[2].build,
    {"n_estimators": Range(2, 12, integer=True), "learning_rate": Range(0.01, 0.5, log=True)},
    search=Search("optuna", trials=10, at_once=4),
)


@pytest.fixture(scope="module")
def rows(received: Callable[..., list[list[str]]]) -> Rows:
    table = check(COVERTYPE, received(400), "uci").accepted
    return frames.canonical(COVERTYPE, table), table["Cover_Type"].to_numpy(dtype=np.int64)


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalDask]:
    with local_dask(tmp_path_factory.mktemp("dask"), workers=1) as started:
        yield started


@pytest.fixture
def running(dask: LocalDask) -> LocalDask:
    """The cluster with at least one worker."""
    return with_workers(dask, 1)


def with_workers(dask: LocalDask, count: int) -> LocalDask:
    """The cluster with at least that many workers: a start takes seconds, so what a test has left is used."""
    dask.workers = [worker for worker in dask.workers if worker.poll() is None]
    if dask.scheduler is None:
        dask.start_scheduler()
    while len(dask.workers) < count:
        dask.start_worker()
    dask.wait_for_workers(len(dask.workers))
    return dask


@pytest.fixture
def on_cluster(running: LocalDask) -> Iterator[OnCluster]:
    with Cluster(running.settings) as cluster:
        yield OnCluster(cluster, running.settings, COVERTYPE.name)


def searched(
    engine: Engine, rows: Rows, family: Family, use_case: UseCase = COVERTYPE, callback: Any = None
) -> AnySearch:
    search = search_of(use_case, family, seed=3, engine=engine)
    search.on_candidate = callback
    search.fit(*rows)
    return search


def check_equal(one: AnySearch, other: AnySearch) -> None:
    """Equal candidates, scores, choice and model, bit by bit."""
    assert list(one.cv_results_["params"]) == list(other.cv_results_["params"])
    for name, scores in one.cv_results_.items():
        if "score" in name and "time" not in name:
            np.testing.assert_array_equal(scores, other.cv_results_[name], name)
    assert one.best_params_ == other.best_params_
    assert digest(one.best_estimator_) == digest(other.best_estimator_)


def few_rows(use_case: UseCase) -> Rows:
    """Rows of a use case with its own columns, drawn from what it declares."""
    rng = np.random.default_rng(4)
    table: dict[str, Any] = {n.name: rng.uniform(n.minimum, n.maximum, 240) for n in use_case.numbers}
    table |= {c.name: rng.choice(list(c.values), 240) for c in use_case.categories}
    return frames.canonical(use_case, pd.DataFrame(table)), rng.choice(list(use_case.target.labels), 240)


def narrowed(family: Family) -> Family:
    """The family with at most two values of a parameter and four trials."""
    space = {name: values if isinstance(values, Range) else values[:2] for name, values in family.space.items()}
    return dataclasses.replace(family, space=space, search=dataclasses.replace(family.search, trials=4))


@pytest.fixture(scope="module")
def in_threads(rows: Rows) -> list[tuple[UseCase, Family, Rows, AnySearch]]:
    """Every declared family on a part of its space, and one with trials asked for together, searched in threads."""
    families = [
        (use_case, narrowed(family)) for use_case in (COVERTYPE, PENGUINS, EMPLOYEES) for family in use_case.families
    ]
    found = []
    for use_case, family in [*families, (COVERTYPE, TRIALS)]:
        of_use_case = rows if use_case is COVERTYPE else few_rows(use_case)
        found.append((use_case, family, of_use_case, searched(Threads(2), of_use_case, family, use_case)))
    return found


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_scores_choice_and_model_of_every_family_are_those_of_threads(
    workers: int, dask: LocalDask, in_threads: list[tuple[UseCase, Family, Rows, AnySearch]]
) -> None:
    with_workers(dask, workers)
    assert len(dask.workers) == workers
    with Cluster(dask.settings) as cluster:
        for use_case, family, of_use_case, expected in in_threads:
            engine = OnCluster(cluster, dask.settings, use_case.name)
            check_equal(searched(engine, of_use_case, family, use_case), expected)


@pytest.mark.soak
@pytest.mark.parametrize("killed", ["worker", "all workers", "scheduler"])
def test_a_kill_changes_no_score(killed: str, dask: LocalDask, rows: Rows) -> None:
    """While a grid and a search of trials run side by side."""
    with_workers(dask, 2)
    seen: dict[str, list[int]] = {TREES.name: [], TRIALS.name: []}

    def kill_after_the_third(family: Family, scored: ScoredCandidate) -> None:
        seen[family.name].append(scored.number)
        if family is TREES and len(seen[family.name]) == 3:
            kill(dask, killed)

    def search(family: Family) -> AnySearch:
        return searched(engine, rows, family, callback=partial(kill_after_the_third, family))

    with Cluster(dask.settings) as cluster, ThreadPoolExecutor(2) as pool:
        engine = OnCluster(cluster, dask.settings, COVERTYPE.name)
        found = list(pool.map(search, (TREES, TRIALS)))
    for family, search_on_cluster in zip((TREES, TRIALS), found, strict=True):
        expected = searched(Threads(2), rows, family)
        check_equal(search_on_cluster, expected)
        assert sorted(seen[family.name]) == list(range(1, len(expected.cv_results_["params"]) + 1))


def kill(dask: LocalDask, what: str) -> None:
    """Kill a part; what a search cannot do without is started again."""
    if what == "scheduler":
        dask.restart()
        return
    for _ in dask.workers[:] if what == "all workers" else dask.workers[:1]:
        dask.kill_worker()
    if not dask.workers:
        dask.start_worker()


def test_equal_trials_that_are_asked_for_together_are_each_scored(on_cluster: OnCluster, rows: Rows) -> None:
    family = dataclasses.replace(TRIALS, space={"n_estimators": (2, 3)}, search=Search("optuna", trials=6, at_once=6))
    check_equal(searched(on_cluster, rows, family), searched(Threads(2), rows, family))


def test_candidates_are_visible_during_the_search(on_cluster: OnCluster, rows: Rows) -> None:
    class EnoughSeen(Exception):
        pass

    def stop(scored: ScoredCandidate) -> None:
        assert scored.cpu_seconds > 0
        if scored.done == 2:
            raise EnoughSeen

    with pytest.raises(EnoughSeen):
        searched(on_cluster, rows, TREES, callback=stop)


@pytest.mark.soak
def test_a_task_that_kills_its_workers_is_given_up_and_the_error_names_their_memory(
    on_cluster: OnCluster, rows: Rows
) -> None:
    """Dask may blame a task that waited on the dying workers, so the named parameters can be those of another task."""
    family = Family("deadly", lambda seed: Deadly(random_state=seed), {"max_depth": (2, 13)})
    with pytest.raises(
        ClusterTaskKilled, match=r"Deadly .*'max_depth': \d+.* on fold \d .*3 workers died.*use is \d+ MB of [\d,]+ MB"
    ):
        searched(on_cluster, rows, family)


def test_an_error_of_a_task_is_raised_as_it_is(on_cluster: OnCluster, rows: Rows) -> None:
    family = dataclasses.replace(TREES, space={"max_depth": (-1,)})
    with pytest.raises(ValueError, match="max_depth"):
        searched(on_cluster, rows, family)


@pytest.mark.parametrize("name", ["Python", "dosel", "scikit-learn"])
def test_a_worker_with_other_software_is_named_before_the_first_task(
    name: str, running: LocalDask, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = preflight.software() | {name: "0.0"}
    monkeypatch.setattr(connection, "software", lambda: here)
    with (
        Cluster(running.settings) as cluster,
        pytest.raises(ClusterMismatch, match=rf"^worker tls://127.0.0.1:\d+ has {name} .*, and the training has 0.0; "),
    ):
        cluster.cores()


def test_a_worker_that_joined_later_is_checked_in_its_tasks(
    on_cluster: OnCluster, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cluster.cores()
    here = preflight.software() | {"numpy": "0.0"}
    monkeypatch.setattr("dosel.training.on_cluster.software", lambda: here)
    with pytest.raises(ClusterMismatch, match=r"worker tls://127.0.0.1:\d+ has numpy .*, and the training has 0.0"):
        searched(on_cluster, rows, TREES)


@pytest.mark.soak
@pytest.mark.parametrize("away", ["scheduler", "workers"])
def test_a_cluster_that_stays_away_is_an_error_in_time(
    away: str, running: LocalDask, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 4.0)

    def kill(scored: ScoredCandidate) -> None:
        if scored.done == 1:
            for _ in running.workers[:]:
                running.kill_worker()
            if away == "scheduler":
                running.kill_scheduler()

    with Cluster(running.settings) as cluster:
        engine = OnCluster(cluster, running.settings, COVERTYPE.name)
        began = time.monotonic()
        with pytest.raises(
            ClusterUnavailable, match="no Dask scheduler answers" if away == "scheduler" else "no worker"
        ):
            searched(engine, rows, TREES, callback=kill)
        assert time.monotonic() - began < 4.0 + 15


@pytest.mark.soak
def test_a_result_that_was_lost_with_the_last_worker_is_an_error_in_time(
    running: LocalDask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 2.0)

    def finished_and_lost(client: Any, name: str) -> Any:
        future = client.submit(str, name, key=name)
        future.result()
        for _ in running.workers[:]:
            running.kill_worker()
        return future

    with Cluster(running.settings) as cluster, pytest.raises(ClusterUnavailable, match="no worker for 2 s"):
        list(cluster.results(["lost"], finished_and_lost, str))


def test_only_members_with_the_certificate_are_let_in(running: LocalDask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 2.0)
    stranger = running.settings.model_copy(update={"cluster_certificate": new_certificate()})
    with Cluster(stranger) as cluster, pytest.raises(ClusterUnavailable, match="with this certificate"):
        cluster.cores()


def search_in_this_process(settings: Settings, rows: Rows) -> list[float]:
    with Cluster(settings) as cluster:
        search = searched(OnCluster(cluster, settings, COVERTYPE.name), rows, TREES)
    return list(search.cv_results_["mean_test_score"])


@pytest.mark.soak
def test_a_daemonic_process_searches_on_the_cluster(running: LocalDask, rows: Rows) -> None:
    """As Celery's are, which may not start processes of their own."""
    expected = searched(Threads(2), rows, TREES)
    with multiprocessing.get_context("spawn").Pool(1) as daemonic:
        scores = daemonic.apply(search_in_this_process, (running.settings, rows))
    assert scores == list(expected.cv_results_["mean_test_score"])


def test_distributed_is_not_imported_without_a_cluster(tmp_path: Path) -> None:
    code = (
        "import sys; from dosel.pipeline import Pipeline; from dosel.training.engines import engine_of\n"
        "from dosel.settings import Settings; from dosel.usecases.penguins import PENGUINS\n"
        "with engine_of(PENGUINS, Settings()) as engine: engine.cores()\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('dask', 'distributed')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
