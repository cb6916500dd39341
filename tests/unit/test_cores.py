"""A training uses all requested cores, also in a daemonic process, which cannot have children."""

import multiprocessing
import os

import pytest

from dosel.training.fan_out import Threads


@pytest.mark.soak
@pytest.mark.parametrize(("jobs", "used"), [(-1, os.cpu_count()), (1, 1), (2, 2)])
def test_a_daemonic_process_uses_the_requested_cores(jobs: int, used: int) -> None:
    """joblib's default backend would silently use one core there."""
    with multiprocessing.get_context("spawn").Pool(1) as daemonic:
        assert daemonic.apply(Threads(jobs).cores) == used
