"""Trains LightGBM on the workers of a Dask cluster, each with a share of the partitions, which it reads from the lake.

LightGBM's processes exchange histograms over ports of their own, so that the trees depend on the number of workers.
"""

from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from dosel.cluster.connection import Cluster
from dosel.cluster.preflight import Software, check_own, software
from dosel.errors import ClusterUnavailable, TrainingError
from dosel.settings import Settings
from dosel.sources.lake import open_lake
from dosel.training.partitioned import PartitionedJob
from dosel.training.rows import Counts

if TYPE_CHECKING:
    from distributed import Client, Future

SOCKET_MINUTES = 2
"""Minutes that one LightGBM process waits for another."""


class OnWorkers:
    """Fits and evaluates on all workers that the cluster has when a fit begins."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def fit(self, job: PartitionedJob, model: Any, without: int) -> Any:
        """Fit the model to the training rows without one fold.

        Raises:
            ClusterUnavailable: a worker or the scheduler was lost meanwhile; try again.
            TrainingError: a worker's share of the rows lacks a class.
        """
        from distributed import KilledWorker
        from lightgbm.basic import LightGBMError
        from lightgbm.dask import DaskLGBMClassifier

        client = self._cluster.client()
        shares = self._shares(job, without, sorted(client.scheduler_info(n_workers=-1)["workers"]))
        try:
            with client.as_current():
                features, classes = _matrices(client, job, without, shares)
                params = model.get_params() | {"time_out": SOCKET_MINUTES}
                fitted = DaskLGBMClassifier(client=client, **params).fit(features, classes).to_local()
        except (LightGBMError, KilledWorker, CancelledError, OSError, TimeoutError) as error:
            raise ClusterUnavailable(
                f"LightGBM's training on {len(shares)} workers failed ({error}); if a worker was lost, try again"
            ) from error
        for name in fitted.get_params().keys() - model.get_params().keys():
            # How the workers trained it is no part of the model.
            fitted._other_params.pop(name)
            delattr(fitted, name)
        return fitted.set_params(n_jobs=model.n_jobs)

    def confusion(self, job: PartitionedJob, model: Any, place: int | None) -> Counts:
        """As `PartitionedJob.confusion`, over all partitions, each share of them on whichever worker is free."""
        count = self._cluster.cores()
        shares = {f"confusion-{uuid4()}": range(i, len(job.partitions.keys), count) for i in range(count)}

        def submit(client: "Client", name: str) -> "Future[Counts]":
            return client.submit(_confusion, software(), job, shares[name], model, place, key=name)

        found = self._cluster.results(shares, submit, lambda name: f"evaluating partitions {list(shares[name])}")
        size = len(job.codes)
        return sum((counts for _, counts in found), np.zeros((size, size), np.int64))

    def _shares(self, job: PartitionedJob, without: int, workers: Sequence[str]) -> dict[str, Sequence[int]]:
        """The places of each worker's partitions; a worker without any does not take part."""
        counts = job.counts(without)
        used = [i for i in range(len(counts)) if counts[i].sum()]
        shares: dict[str, Sequence[int]] = {
            worker: used[i :: len(workers)] for i, worker in enumerate(workers) if used[i :: len(workers)]
        }
        occurring = counts.sum(axis=0) > 0
        for worker, share in shares.items():
            if lacking := job.codes[occurring & (counts[share].sum(axis=0) == 0)].tolist():
                labels = ", ".join(job.use_case.target.labels[code] for code in lacking)
                raise TrainingError(
                    f"{job.use_case.name}: the {len(share)} partitions of worker {worker} have no row of {labels}, "
                    f"and LightGBM needs every class on each of the {len(shares)} workers; use fewer workers"
                )
        return shares


def _matrices(client: "Client", job: PartitionedJob, without: int, shares: dict[str, Sequence[int]]) -> tuple[Any, Any]:
    """Features and classes as Dask arrays with one chunk for each worker, which stays where it was made."""
    import dask.array as da
    from dask.delayed import delayed

    width = len(job.survey.preprocessing.get_feature_names_out())
    features, classes = [], []
    for worker, share in shares.items():
        rows = int(job.counts(without)[share].sum())
        placed = {"workers": [worker], "allow_other_workers": False, "pure": False}
        both = client.submit(_matrix, software(), job, share, without, **placed)
        x, y = (client.submit(_take, both, side, **placed) for side in (0, 1))
        features.append(da.from_delayed(delayed(x), (rows, width), np.float32))  # type: ignore[no-untyped-call]
        classes.append(da.from_delayed(delayed(y), (rows,), np.int64))  # type: ignore[no-untyped-call]
    return da.concatenate(features), da.concatenate(classes)  # type: ignore[no-untyped-call]


def _matrix(expected: Software, job: PartitionedJob, share: Sequence[int], without: int) -> tuple[Any, Any]:
    check_own(expected)
    return job.matrix(open_lake(Settings.load()), share, without)


def _take(both: tuple[Any, Any], side: int) -> Any:
    return both[side]


def _confusion(expected: Software, job: PartitionedJob, share: Sequence[int], model: Any, place: int | None) -> Counts:
    check_own(expected)
    return job.confusion(open_lake(Settings.load()), share, model, place)
