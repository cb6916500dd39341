"""The estimated accuracy, calibrated on held-out rows, and the cases without an estimate."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from dosel.model import held_out
from dosel.model.held_out import HeldOut
from dosel.monitor.estimate import estimate

Floats = npt.NDArray[np.float64]


def answered(rows: int, centre: float, seed: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Probabilities of an overconfident model with the classes 3 and 5, and the true classes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(centre, 1, rows)
    truth = np.where(rng.random(rows) < 1 / (1 + np.exp(-x)), 5, 3)
    believed = 1 / (1 + np.exp(-4 * x))
    return np.column_stack([1 - believed, believed]), truth


def accuracy(probabilities: Floats, truth: npt.NDArray[np.int64]) -> float:
    return float((np.array([3, 5])[probabilities.argmax(axis=1)] == truth).mean())


@pytest.fixture(scope="module")
def known() -> HeldOut:
    probabilities, truth = answered(2_000, 0, seed=1)
    return HeldOut(np.array([3, 5]), probabilities, truth)


@pytest.mark.parametrize("centre", [0.0, 0.8, -1.2])
def test_the_estimate_follows_a_shift_of_an_overconfident_model(known: HeldOut, centre: float) -> None:
    probabilities, truth = answered(1_000, centre, seed=2)
    found, measured = estimate(known, probabilities, np.zeros(1_000, np.bool_)), accuracy(probabilities, truth)
    assert found.accuracy is not None
    assert found.low is not None
    assert found.high is not None
    assert abs(probabilities.max(axis=1).mean() - measured) > 0.1
    assert found.accuracy == pytest.approx(measured, abs=0.025)
    assert found.low < measured < found.high


def test_a_concept_drift_does_not_change_the_estimate(known: HeldOut) -> None:
    probabilities, truth = answered(1_000, 0, seed=2)
    found = estimate(known, probabilities, np.zeros(1_000, np.bool_))
    assert found.low is not None
    # With the labels swapped, most answers are wrong, and no input of the estimate has changed.
    assert accuracy(probabilities, 8 - truth) < found.low - 0.2


def test_rows_outside_the_training_rows_prevent_an_estimate(known: HeldOut) -> None:
    probabilities, _ = answered(1_000, 0, seed=2)
    found = estimate(known, probabilities, np.arange(1_000) < 300)
    assert found.accuracy is None
    assert found.thin == pytest.approx(0.3, abs=0.01)
    assert found.refused == "30% of the rows are unlike the held-out rows"


def test_probabilities_that_no_held_out_row_had_prevent_an_estimate() -> None:
    probabilities, truth = answered(1_000, 6, seed=1)
    sure = HeldOut(np.array([3, 5]), probabilities, truth)
    assert "unlike the held-out rows" in estimate(sure, answered(500, 0, seed=2)[0], np.zeros(500, np.bool_)).refused


@pytest.mark.parametrize(("held", "rows"), [(99, 500), (500, 99)])
def test_few_rows_give_no_estimate(known: HeldOut, held: int, rows: int) -> None:
    few = HeldOut(known.codes, known.probabilities[:held], known.truth[:held])
    found = estimate(few, known.probabilities[:rows], np.zeros(rows, np.bool_))
    assert found.accuracy is None
    assert found.refused == f"too few rows: {rows} answers and {held} held-out rows; it takes 100 of each"


def test_a_version_without_held_out_probabilities_has_no_estimate() -> None:
    found = estimate(None, answered(500, 0, seed=2)[0], np.zeros(500, np.bool_))
    assert (found.accuracy, found.refused.split(":")[0]) == (None, "not known")


class Model:
    classes_ = np.array([3, 5])

    def predict_proba(self, features: pd.DataFrame) -> Any:
        return np.column_stack([1 - features["x"], features["x"]])


def test_the_file_contains_a_sample_of_the_held_out_probabilities(tmp_path: Path) -> None:
    x = np.linspace(0, 1, held_out.MOST_ROWS + 10)
    file = held_out.write(Model(), pd.DataFrame({"x": x}), np.where(x > 0.5, 5, 3), tmp_path)
    found = HeldOut.read(file.read_bytes())
    assert (len(found), found.codes.tolist()) == (held_out.MOST_ROWS, [3, 5])
    assert ((found.probabilities[:, 1] > 0.5) == (found.truth == 5)).all()
