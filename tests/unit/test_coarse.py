"""Figures about live rows of a closed use case do not show one row more."""

from math import inf
from typing import Any

import pytest

from app.schemas.coarse import coarse, power_of_ten, without_counts, without_numbers


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (9, 0),
        (99, 90),
        (1_234, 1_200),
        (0.837, 0.85),
        (123.4, 120.0),
        (inf, inf),
        (True, True),
        (None, None),
        ({"labels": [17, 23], "version": 17}, {"labels": [10, 20], "version": 17}),
    ],
)
def test_counts_and_shares_are_coarse(value: Any, shown: Any) -> None:
    assert coarse(value) == shown


@pytest.mark.parametrize(("evidence", "shown"), [(0.034, 0.01), (250.0, 100.0), (0.0, 0.0), (inf, inf)])
def test_evidence_is_a_power_of_ten(evidence: float, shown: float) -> None:
    assert power_of_ten(evidence) == shown


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ("1,003 rows only the shadow, 1 row only the champion", "… rows only the shadow, … row only the champion"),
        # An older dosel wrote so.
        ("3 only it, 1 only the champion", "… only it, … only the champion"),
    ],
)
def test_sentences_keep_their_words(counts: str, shown: str) -> None:
    reason = f"it answered 1,017 of 1,040 labelled rows correctly ({counts}); version 2 stays"
    assert without_counts(reason) == f"it answered … of … labelled rows correctly ({shown}); version 2 stays"
    assert without_numbers("a decision needs 12 more labels (0.5 %)") == "a decision needs … more labels (… %)"
