"""Actors as people read them."""

import pytest

from dosel.actors import readable


@pytest.mark.parametrize(
    ("actor", "shown"),
    [
        (
            "covertype_train asset_triggered__2026-11-28T14:05:09.123456+00:00_Vufy1H0j",
            "Airflow, run of 2026-11-28 14:05 UTC",
        ),
        ("covertype_train scheduled__2026-11-28T14:05:00+02:00", "Airflow, run of 2026-11-28 12:05 UTC"),
        (
            "covertype_train manual__2026-11-28T14:05:00+00:00_x, approved by ana, ben",
            "Airflow, run of 2026-11-28 14:05 UTC, approved by ana, ben",
        ),
        ("covertype_train manual__again", "Airflow, DAG covertype_train"),
        ("covertype_train manual__2026-99-99T25:00:00+00:00", "Airflow, DAG covertype_train"),
        ("monitor", "monitor"),
        ("API key ana", "API key ana"),
        ("ana on host__1", "ana on host__1"),
    ],
)
def test_a_run_of_airflow_is_shown_by_its_time_and_others_as_they_are(actor: str, shown: str) -> None:
    assert readable(actor) == shown
