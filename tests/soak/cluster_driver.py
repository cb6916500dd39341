"""The training of tests.soak.cluster, as a task of Airflow runs it: from the data store, in a process of its own.

python -m tests.soak.cluster_driver EXPERIMENT        settings come from the environment
"""

import dataclasses
import logging
import sys

from dosel.errors import ClusterError
from dosel.pipeline import Pipeline
from dosel.settings import Settings
from dosel.usecases import Family, Range, Search, UseCase
from dosel.usecases.covertype import COVERTYPE

RETRY = 75
"""Exit code after an error that a retry may not meet."""

USE_CASE = dataclasses.replace(
    COVERTYPE,
    families=(
        Family(
            "extra_trees",
            COVERTYPE.families[1].build,
            {"n_estimators": (20, 40), "max_depth": (6, 9, 12), "max_features": (4, 8)},
        ),
        Family(
            "lightgbm",
            COVERTYPE.families[2].build,
            {"n_estimators": Range(10, 60, integer=True), "learning_rate": Range(0.05, 0.4, log=True)},
            search=Search("optuna", trials=8, at_once=4),
        ),
    ),
)


def of_experiment(name: str) -> UseCase:
    """The use case with its runs in another experiment, so that a training finds none of another's."""
    return dataclasses.replace(USE_CASE, experiment=name)


def main(experiment: str) -> int:
    """Train; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        Pipeline(of_experiment(experiment), Settings.load()).train()
    except ClusterError:
        logging.exception("the cluster failed")
        return RETRY
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
