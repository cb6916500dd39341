"""The gate: who enters Production, decided on two figures."""

import math

import pytest

from dosel.registry import decide
from dosel.usecases import Gate


@pytest.mark.parametrize(
    ("challenger", "champion", "min_gain", "passed"),
    [
        pytest.param(0.1, None, 0.0, True, id="the first one enters"),
        pytest.param(0.1, None, 0.5, True, id="the first one has nobody to gain on"),
        pytest.param(0.81, 0.80, 0.0, True, id="better"),
        pytest.param(0.80, 0.80, 0.0, False, id="equal is not better"),
        pytest.param(0.79, 0.80, 0.0, False, id="worse"),
        pytest.param(0.81, 0.80, 0.05, False, id="better by too little"),
        pytest.param(0.75, 0.50, 0.25, False, id="better by exactly the gain that must be exceeded"),
        pytest.param(0.76, 0.50, 0.25, True, id="better by more than that"),
        pytest.param(math.nan, 0.80, 0.0, False, id="no figure at all"),
        pytest.param(0.80, math.nan, 0.0, False, id="nothing to compare with"),
    ],
)
def test_only_the_better_enters(challenger: float, champion: float | None, min_gain: float, passed: bool) -> None:
    assert decide(Gate("accuracy", min_gain), challenger, champion).passed is passed


@pytest.mark.parametrize(
    ("champion", "reason"),
    [
        (None, "f1_macro 0.8123; nothing was in Production"),
        (0.7, "better: f1_macro 0.8123 against 0.7000 in Production, on the same held-out rows"),
        (0.9, "not better: f1_macro 0.8123 against 0.9000 in Production, on the same held-out rows"),
    ],
)
def test_the_reason_has_the_figures(champion: float | None, reason: str) -> None:
    assert decide(Gate("f1_macro"), 0.81234, champion).reason == reason
