"""Killed at any moment, the warehouse holds every acknowledged batch once and whole."""

import pytest

from benchmarks.soak_ingest import soak

KILLS = 20


@pytest.mark.usefixtures("mariadb")
@pytest.mark.timeout(1200)
@pytest.mark.soak
def test_kills_leave_every_acknowledged_batch_whole() -> None:
    tally = soak(KILLS, seed=1)
    assert tally.kills.total() == KILLS
    assert tally.acknowledged > 0
    assert (tally.lost, tally.doubled, tally.half) == (0, 0, 0)
    assert tally.in_transaction >= KILLS / 2, "the moments miss what they are meant to hit"
