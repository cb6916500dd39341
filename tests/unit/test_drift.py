"""The drift that the data API can simulate: what each kind changes in a batch, and what it keeps."""

import numpy as np
import pandas as pd
import pytest

from external.columns import COLUMNS, COVER, as_words
from external.drift import Drift, parse
from external.generator import generate

SEED = (0, 6, 0, 6, 0)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return generate(3_000, seed=4)


def sent(drift: Drift, rows: pd.DataFrame) -> list[list[str]]:
    return drift.change(as_words(drift.resample(rows, SEED), 1), 1, SEED)


@pytest.mark.parametrize(
    ("text", "drift"),
    [
        ("", None),
        ("batch=6,kind=label", Drift(6, "label", 0.3)),
        (" batch=1, kind=soiled , size=1", Drift(1, "soiled", 1.0)),
    ],
)
def test_the_drift_setting_has_batch_kind_and_size(text: str, drift: Drift | None) -> None:
    assert parse(text) == drift


@pytest.mark.parametrize(
    "text",
    [
        "concept",
        "batch=0,kind=label",
        "batch=11,kind=label",
        "batch=2,kind=other",
        "batch=2,kind=label,size=0",
        "batch=2,kind=label,size=nan",
        "batch=2,kind=label,more=1",
        "kind=label",
    ],
)
def test_an_invalid_drift_setting_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as batch=6,kind=concept"):
        parse(text)


@pytest.mark.parametrize("kind", ["label", "covariate", "concept", "soiled"])
def test_drift_is_seeded_and_keeps_the_number_of_rows(kind: str, rows: pd.DataFrame) -> None:
    drift = Drift(6, kind, 0.3)  # type: ignore[arg-type]
    assert sent(drift, rows) == sent(drift, rows)
    assert len(sent(drift, rows)) == len(rows)
    assert {len(row) for row in sent(drift, rows)} == {len(COLUMNS)}


def test_concept_drift_swaps_the_labels_of_two_classes_in_its_share_of_rows(rows: pd.DataFrame) -> None:
    before, after = as_words(rows, 1), sent(Drift(6, "concept", 0.3), rows)
    assert [row[:-1] for row in after] == [row[:-1] for row in before]
    changed = [(b[-1], a[-1]) for a, b in zip(after, before, strict=True) if a[-1] != b[-1]]
    assert set(changed) == {("1", "2"), ("2", "1")}
    assert len(changed) / rows[COVER].isin([1, 2]).sum() == pytest.approx(0.3, abs=0.03)


def test_soiled_drift_makes_its_share_of_measurements_unreadable(rows: pd.DataFrame) -> None:
    unreadable = [not row[0].lstrip("-").isdigit() for row in sent(Drift(6, "soiled", 0.5), rows)]
    assert np.mean(unreadable) == pytest.approx(0.5, abs=0.03)


def test_label_drift_makes_rare_classes_more_frequent_and_keeps_their_rows(rows: pd.DataFrame) -> None:
    after = Drift(6, "label", 0.8).resample(rows, SEED)
    rare = rows[COVER].value_counts().idxmin()
    assert (after[COVER] == rare).mean() > 5 * (rows[COVER] == rare).mean()
    assert set(map(tuple, after.to_numpy())) <= set(map(tuple, rows.to_numpy()))


def test_covariate_drift_samples_rows_of_higher_elevation(rows: pd.DataFrame) -> None:
    after = Drift(6, "covariate", 0.8).resample(rows, SEED)
    assert after["Elevation"].mean() > rows["Elevation"].mean() + 0.5 * rows["Elevation"].std()
