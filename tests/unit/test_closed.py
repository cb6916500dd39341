"""Figures about live rows of a closed use case do not show one row more."""

from math import inf
from typing import Any

import pytest

from dosel.closed import coarse, power_of_ten, without_figures


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
    ("text", "shown"),
    [
        (
            "it answered 1,017 of 1,040 labelled rows correctly (3 only it, 1 only the champion); version 2 stays",
            "it answered … of … labelled rows correctly (… only it, … only the champion); version 2 stays",
        ),
        (
            "1,003 rows only the version in shadow, 1 row only the champion",
            "… rows only the version in shadow, … row only the champion",
        ),
        ("waits for 12 more labelled rows", "waits for … more labelled rows"),
        ("more evidence: 3.4 that it is better and 0.034 that", "more evidence: … that it is better and … that"),
        (
            "accuracy 0.7833 on 400 labelled live rows (the true figure is at most 0.8012), 0.87 on 46 held-out rows",
            "accuracy … on … labelled live rows (the true figure is at most …), … on … held-out rows",
        ),
        ("proven after 8 of these live rows", "proven after … of these live rows"),
        (
            "f1_macro 0.8710 against 0.8676 in Production, on the same 1,146 held-out rows; women: 17 of 40",
            "f1_macro 0.87 against 0.87 in Production, on the same … held-out rows; women: … of …",
        ),
        (
            "95.0000% interval of the difference: -0.0123 to +0.0456; required: at least -0.0100 at look 2 of 20",
            "…% interval of the difference: -0.01 to +0.05; required: at least -0.01 at look 2 of …",
        ),
        ("probabilities off by at most 3.2e-07", "probabilities off by at most …"),
        ("0.5 % of versions 3 and 4, request 2", "… % of versions 3 and 4, request 2"),
        ("all use the split h1-salt-0.2-8f2a1b3c", "all use the split h1-salt-0.2-8f2a1b3c"),
        ("until 2026-11-28 03:40 UTC, run 0123456789ab", "until 2026-11-28 03:40 UTC, run 0123456789ab"),
    ],
)
def test_a_text_of_a_closed_use_case_keeps_its_words_and_no_figures(text: str, shown: str) -> None:
    assert without_figures(text) == shown
