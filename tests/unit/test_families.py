"""ONNX Runtime answers for every declared family, also for rows with missing optional values."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dosel.model import bundle
from dosel.model.predictor import Predictor
from dosel.rows import frames
from dosel.rows.columns import Columns
from dosel.training.preprocessing import pipeline
from dosel.usecases import ALL, Family, UseCase

ROWS, HELD_OUT, MISSING = 600, 200, 0.1


def table(use_case: UseCase) -> tuple[pd.DataFrame, Any]:
    """Valid rows, and classes that follow from their numbers."""
    rng, count = np.random.default_rng(0), ROWS + HELD_OUT
    columns: dict[str, Any] = {}
    for number in use_case.numbers:
        values = rng.uniform(number.minimum, number.maximum, count)
        columns[number.name] = np.rint(values).clip(number.minimum, number.maximum) if number.integer else values
    places = (
        np.mean([(columns[n.name] - n.minimum) / (n.maximum - n.minimum) for n in use_case.numbers], axis=0)
        .argsort()
        .argsort()
    )
    for category in use_case.categories:
        columns[category.name] = rng.choice(category.values, count).astype(object)
    for feature in use_case.features:
        if feature.optional:
            columns[feature.name][rng.random(count) < MISSING] = None
    codes = np.array(list(use_case.target.labels))
    return frames.canonical(use_case, pd.DataFrame(columns)), codes[places * len(codes) // count]


@pytest.mark.parametrize(
    ("use_case", "family"),
    [
        pytest.param(use_case, family, id=f"{use_case.name} {family.name}")
        for use_case in ALL
        for family in use_case.families
    ],
)
def test_onnx_runtime_answers_for_every_declared_family(use_case: UseCase, family: Family, tmp_path: Path) -> None:
    features, classes = table(use_case)
    model = pipeline(use_case, family.build(0)).fit(features[:ROWS], classes[:ROWS])
    predictor = Predictor(use_case, model)
    proof = predictor.check_parity(features[ROWS:])
    assert (predictor.backend, predictor.fallback_reason) == ("onnx", "")
    assert proof is not None
    assert proof.rows == HELD_OUT
    assert_stored_answers_are_equal(predictor, features[ROWS:], tmp_path)


def assert_stored_answers_are_equal(predictor: Predictor, features: pd.DataFrame, folder: Path) -> None:
    """The stored files give the same answers, bit for bit; only near ties need the fitted model."""
    bundle.write_backend(predictor, folder)
    stored = bundle.read_backend(folder)
    assert stored.encoder is not None
    assert stored.onnx is not None
    again = Predictor.stored(predictor.use_case, stored.encoder, stored.onnx, lambda: predictor.model)
    rows = Columns.of(predictor.use_case, features)
    expected, found = (one.scores(rows.numbers, rows.codes) for one in (predictor, again))
    assert (found.probabilities == expected.probabilities).all()
    assert (found.chosen == expected.chosen).all()
    assert (again.classes, again.names) == (predictor.classes, predictor.names)
