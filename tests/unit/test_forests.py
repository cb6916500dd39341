"""Forests converted to ONNX answer as scikit-learn does, also exactly at the thresholds."""

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_classification, make_multilabel_classification
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from dosel.model.onnx.classifier import OnnxClassifier
from dosel.model.onnx.forests import NotAForest, from_forest

COLUMNS = 6
TREES = {
    "forest": RandomForestClassifier(20, random_state=0),
    "extra trees": ExtraTreesClassifier(20, random_state=0),
    "weighted": RandomForestClassifier(10, class_weight="balanced", max_depth=3, random_state=0),
    "a tree": DecisionTreeClassifier(max_depth=5, random_state=0),
    "an extra tree": ExtraTreeClassifier(random_state=0),
    "nothing but leaves": RandomForestClassifier(3, min_samples_split=10_000, random_state=0),
}


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", TREES)
def test_the_converted_forest_answers_as_scikit_learn_does(name: str, classes: int) -> None:
    rows, truth = make_classification(500, COLUMNS, n_informative=5, n_redundant=0, n_classes=classes, random_state=1)
    model = TREES[name].fit(rows, truth)
    compiled = OnnxClassifier(from_forest(model, COLUMNS))
    asked = [rows.astype(np.float32)]
    for column, thresholds in compiled.thresholds():
        beside = np.repeat(rows[:1].astype(np.float32), 3 * len(thresholds), axis=0)
        at = thresholds.astype(np.float32)
        beside[:, column] = np.concatenate([np.nextafter(at, np.float32(-9e9)), at, np.nextafter(at, np.float32(9e9))])
        asked.append(beside)
    every = np.concatenate(asked)
    expected, found = model.predict_proba(every), compiled.probabilities(every)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.max() <= 1
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_a_forest_with_several_targets_is_not_converted() -> None:
    rows, truth = make_multilabel_classification(50, COLUMNS, random_state=0)
    model: Any = RandomForestClassifier(2, random_state=0).fit(rows, truth)
    with pytest.raises(NotAForest, match="targets"):
        from_forest(model, COLUMNS)
