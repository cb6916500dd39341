"""The engine of this installation."""

from collections.abc import Iterator
from contextlib import contextmanager

from dosel.settings import Settings
from dosel.training.fan_out import Engine, Threads
from dosel.usecases import UseCase


@contextmanager
def engine_of(use_case: UseCase, settings: Settings) -> Iterator[Engine]:
    """The cluster of `DOSEL_CLUSTER`, connected at its first use; threads of this process if none is set."""
    if not settings.cluster:
        yield Threads(settings.jobs)
        return
    from dosel.cluster.connection import Cluster
    from dosel.training.on_cluster import OnCluster

    with Cluster(settings) as cluster:
        yield OnCluster(cluster, settings, use_case.name)
