"""Checks that workers run the same software as the driver: else their scores may differ from the driver's."""

import platform
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from dosel.errors import ClusterMismatch
from dosel.model.fingerprint import code_version

if TYPE_CHECKING:
    from distributed import Client

PACKAGES = (
    "cloudpickle",
    "dask",
    "distributed",
    "joblib",
    "lightgbm",
    "msgpack",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "xgboost-cpu",
)
"""The packages that a score depends on, or that tasks and results pass through."""

Software = Mapping[str, str]
"""What runs in a process: versions by name."""


@lru_cache(maxsize=1)
def software() -> dict[str, str]:
    """The software of this process."""
    found = {"Python": platform.python_version(), "processor": platform.machine(), "dosel": code_version()}
    return found | {name: _version(name) for name in PACKAGES}


def check_workers(client: "Client", expected: Software, seconds: float) -> None:
    """Compare each worker's software with that of the driver.

    Args:
        expected: the driver's.
        seconds: time limit for the workers' answers.

    Raises:
        ClusterMismatch: a worker differs; the message names the worker and the difference.
    """
    # A worker with other code may not have this function, and a worker that has just ended does not answer.
    answers = client.sync(client._run, software, on_error="return", callback_timeout=seconds)
    for worker, answer in sorted(answers.items()):
        if isinstance(answer, OSError):
            continue
        if isinstance(answer, Exception):
            raise ClusterMismatch(
                f"worker {worker} cannot say which software it runs ({type(answer).__name__}: {answer}); it needs the "
                "image or the environment of this dosel"
            )
        if wrong := difference(answer, expected):
            raise ClusterMismatch(
                f"worker {worker} {wrong}; start it again from the image or environment of this dosel"
            )


def check_own(expected: Software) -> None:
    """Check the software of this process, in each task: a worker may have joined after the check of all workers.

    Raises:
        ClusterMismatch: it differs; the message names the worker and the difference.
    """
    if wrong := difference(software(), expected):
        from distributed import get_worker

        raise ClusterMismatch(
            f"worker {get_worker().address} {wrong}; start it again from the image or environment of this dosel"
        )


def difference(worker: Software, driver: Software) -> str:
    """The first difference of a worker, as the end of a sentence; empty if there is none."""
    for name, wanted in driver.items():
        if (found := worker.get(name, "none")) != wanted:
            return f"has {name} {found}, and the training has {wanted}"
    return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
