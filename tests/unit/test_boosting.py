"""Boosted trees in ONNX against XGBoost and LightGBM, also on rows exactly at the trees' thresholds."""

from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost

from dosel.model.onnx.boosted_trees import NotConvertible, from_lightgbm, from_xgboost
from dosel.model.onnx.classifier import OnnxClassifier

WIDTH = 6


def rows(count: int, seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)) * 100


def classes(x: Any, kinds: int) -> Any:
    return (np.floor(x[:, 0] / 20) + (x[:, 1] > 0)).astype(int) % kinds


def rows_at_thresholds(compiled: OnnxClassifier) -> Any:
    """For each threshold, a row exactly at it and the nearest float on either side."""
    at = [(column, value) for column, values in compiled.thresholds() for value in values]
    made = rows(3 * len(at), seed=5)
    for i, (column, value) in enumerate(at):
        inf = compiled.dtype(np.inf)
        threshold = compiled.dtype(value)
        made[3 * i : 3 * i + 3, column] = [np.nextafter(threshold, -inf), threshold, np.nextafter(threshold, inf)]
    return made


@pytest.mark.parametrize("kinds", [2, 5])
@pytest.mark.parametrize(
    ("build", "convert", "furthest"),
    [
        (lambda: lightgbm.LGBMClassifier(n_estimators=40, num_leaves=20, n_jobs=1, verbose=-1), from_lightgbm, 1e-12),
        (lambda: xgboost.XGBClassifier(n_estimators=40, n_jobs=1), from_xgboost, 1e-6),
        # With this minimum leaf size, some trees do not split at all.
        (lambda: lightgbm.LGBMClassifier(min_child_samples=250, n_jobs=1, verbose=-1), from_lightgbm, 1e-12),
        (lambda: xgboost.XGBClassifier(n_estimators=30, min_child_weight=80, n_jobs=1), from_xgboost, 1e-6),
    ],
    ids=["lightgbm", "xgboost", "lightgbm stumps", "xgboost stumps"],
)
def test_converted_boosted_trees_equal_the_librarys_predictions(
    build: Any, convert: Any, furthest: float, kinds: int
) -> None:
    x = rows(600, seed=1)
    model = build().fit(x, classes(x, kinds))
    compiled = OnnxClassifier(convert(model, WIDTH))
    for asked in (rows(500, seed=2), rows_at_thresholds(compiled)):
        expected = model.predict_proba(asked)
        found = compiled.probabilities(asked.astype(compiled.dtype))
        assert found.argmax(axis=1).tolist() == expected.argmax(axis=1).tolist()
        assert np.abs(found - expected).max() <= furthest


@pytest.mark.parametrize(
    ("build", "convert", "message"),
    [
        (lambda: lightgbm.LGBMClassifier(objective="multiclassova", verbose=-1), from_lightgbm, "multiclassova"),
        (lambda: lightgbm.LGBMClassifier(zero_as_missing=True, verbose=-1), from_lightgbm, "zero as a missing value"),
        (lambda: lightgbm.LGBMClassifier(linear_tree=True, verbose=-1), from_lightgbm, "linear trees"),
        (lambda: xgboost.XGBClassifier(booster="gblinear"), from_xgboost, "gblinear"),
    ],
)
def test_conversion_names_an_unsupported_booster(build: Any, convert: Any, message: str) -> None:
    x = rows(300, seed=1)
    model = build().fit(x, classes(x, 3))
    with pytest.raises(NotConvertible, match=message):
        convert(model, WIDTH)
