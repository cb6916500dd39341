"""Answered rows against training rows: which features changed, and the two-sample test."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from sqlalchemy import Engine

from dosel.errors import RegistryError
from dosel.monitor.context import try_to_update_context
from dosel.monitor.drift import changes, outside, two_sample_test
from dosel.registry.registry import Registry
from dosel.rows.columns import UNKNOWN, Columns
from dosel.usecases.covertype import COVERTYPE
from external.columns import as_words
from external.generator import generate

ELEVATION, SLOPE = "Elevation", "Slope"
NUMBERS = [number.name for number in COVERTYPE.numbers]


def rows(count: int, seed: int) -> Columns:
    words = zip(*as_words(generate(count, seed), first_class=1), strict=True)
    data = dict(zip(COVERTYPE.columns, words, strict=True))
    return Columns.of(
        COVERTYPE, {name: list(map(float, data[name])) if name in NUMBERS else data[name] for name in data}
    )


@pytest.fixture(scope="module")
def training() -> Columns:
    return rows(3_000, seed=1)


@pytest.fixture(scope="module")
def window() -> Columns:
    return rows(1_000, seed=2)


def moved(window: Columns, name: str, by: float) -> Columns:
    numbers = window.numbers.copy()
    numbers[:, NUMBERS.index(name)] += by
    return replace(window, numbers=numbers)


@pytest.mark.parametrize(("name", "by", "words"), [(ELEVATION, 120, " m → 3,1"), (SLOPE, 6, " ° → 19 °")])
def test_the_shifted_feature_is_first_in_its_declared_unit(
    training: Columns, window: Columns, name: str, by: float, words: str
) -> None:
    shifted = moved(window, name, by)
    first, second, *_ = changes(COVERTYPE, training, shifted, outside(training, shifted, is_open=True))
    assert first.name == name
    assert first.effect > 2 * max(second.effect, first.by_chance)
    assert first.change is not None
    assert words in first.change


def test_a_category_whose_values_change_is_first(training: Columns, window: Columns) -> None:
    areas = np.where(np.arange(len(window)) % 2, window.codes[:, 0], 1)
    shifted = replace(window, codes=np.column_stack([areas, window.codes[:, 1]]))
    first, *_ = changes(COVERTYPE, training, shifted, outside(training, shifted, is_open=True))
    assert (first.name, first.kind) == ("Wilderness_Area", "category")
    assert first.change is not None
    assert first.change.startswith("Neota ")
    assert first.effect > 0.4


def test_a_number_that_is_now_missing_is_first(training: Columns, window: Columns) -> None:
    numbers = window.numbers.copy()
    numbers[::2, NUMBERS.index(SLOPE)] = np.nan
    shifted = replace(window, numbers=numbers)
    first, *_ = changes(COVERTYPE, training, shifted, outside(training, shifted, is_open=True))
    assert (first.name, first.effect, first.outside) == (SLOPE, 0.5, 0.5)
    assert first.change is not None
    assert first.change.endswith("missing 0% → 50%")


def test_effects_are_within_chance_when_nothing_changed(training: Columns, window: Columns) -> None:
    found = changes(COVERTYPE, training, window, outside(training, window, is_open=True))
    assert all(change.effect < 2 * change.by_chance for change in found)


def test_values_outside_the_training_range_are_counted() -> None:
    training = Columns(np.array([[1.0, np.nan], [3.0, 5.0]]), np.array([[0], [2]]))
    window = Columns(np.array([[0.5, 5.0], [3.0, np.nan], [np.nan, 6.0]]), np.array([[2], [1], [UNKNOWN]]))
    cells = outside(training, window, is_open=True)
    assert cells.tolist() == [[True, False, False], [False, False, True], [True, True, True]]


def test_no_value_of_fewer_than_ten_training_rows_of_a_closed_use_case_decides() -> None:
    """Clients choose the window's rows: asking again and again, they would find out each value that decides."""
    usual = Columns(np.column_stack([np.linspace(4, 8, 1_000), np.full(1_000, 7.0)]), np.zeros((1_000, 1), np.intp))
    single = Columns(np.array([[11.8, np.nan]] * 9), np.full((9, 1), 1))
    training = Columns(np.vstack([usual.numbers, single.numbers]), np.vstack([usual.codes, single.codes]))
    grid = np.column_stack([np.linspace(0, 14, 500), np.where(np.arange(500) % 2, np.nan, 7.0)])
    window = Columns(grid, (np.arange(500) % 3)[:, None])
    assert (outside(training, window, False) == outside(usual, window, False)).all()
    assert (outside(training, window, True) != outside(usual, window, True)).any(axis=0).all()


def test_a_shift_has_the_smallest_p_value(training: Columns, window: Columns) -> None:
    some = window[np.arange(300)]
    found = two_sample_test(training[np.arange(300)], moved(some, ELEVATION, 300), seconds=60, permutations=19)
    assert (found.p_value, found.permutations) == (1 / 20, 19)
    assert found.auc > 0.7


def test_p_values_are_uniform_without_a_shift(training: Columns) -> None:
    parts = np.random.default_rng(5).permutation(len(training)).reshape(12, 2, 125)
    found = [two_sample_test(training[a], training[b], seconds=60, permutations=9).p_value for a, b in parts]
    # The largest distance from the uniform distribution that 12 values keep in 99 of 100 cases (Kolmogorov-Smirnov).
    assert np.abs(np.sort(found) - np.arange(1, 13) / 12).max() < 0.45


def test_a_two_sample_test_without_time_has_a_p_value_of_one(training: Columns) -> None:
    found = two_sample_test(training[np.arange(200)], training[np.arange(200, 400)], seconds=0)
    assert (found.p_value, found.permutations) == (1.0, 0)


def test_a_failed_computation_is_logged_and_fails_no_task(caplog: pytest.LogCaptureFixture) -> None:
    class Away:
        def production(self, name: str) -> None:
            raise RegistryError("MLflow cannot be reached")

    try_to_update_context(COVERTYPE, cast(Registry, Away()), cast(Engine, None))
    assert "covertype: the context without labels could not be computed" in caplog.text
