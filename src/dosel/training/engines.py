"""The engine of this installation."""

from collections.abc import Iterator
from contextlib import contextmanager

from dosel.settings import Settings
from dosel.sources.lake import open_lake
from dosel.training import partitions
from dosel.training.fan_out import Engine, Threads
from dosel.training.partitioned import InProcess, PartitionedData, Trainer
from dosel.usecases import UseCase
from dosel.warehouse.batches import BatchStore


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


def partitioned_data(use_case: UseCase, batches: BatchStore, engine: Engine, settings: Settings) -> PartitionedData:
    """The clean rows as partitions in the lake, with what trains on them."""
    lake = open_lake(settings)
    return PartitionedData(partitions.store(use_case, batches, lake), lake, _trainer_of(engine, settings))


def _trainer_of(engine: Engine, settings: Settings) -> Trainer:
    """What trains on partitions: the workers of the engine's cluster, or this process."""
    if isinstance(engine, Threads):
        return InProcess(open_lake(settings), settings.jobs)
    from dosel.training.on_cluster import OnCluster
    from dosel.training.on_workers import OnWorkers

    assert isinstance(engine, OnCluster)
    return OnWorkers(engine.cluster)
