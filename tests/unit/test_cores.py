"""How many cores a training works on: all of them, also where its process may have no children."""

import multiprocessing
import os

import pytest

from dosel.training.fan_out import Threads


@pytest.mark.parametrize(("jobs", "used"), [(-1, os.cpu_count()), (1, 1), (2, 2)])
def test_a_daemonic_process_uses_the_requested_cores(jobs: int, used: int) -> None:
    """joblib's own default, processes, is silently one core there."""
    with multiprocessing.get_context("spawn").Pool(1) as daemonic:
        assert daemonic.apply(Threads(jobs).cores) == used
