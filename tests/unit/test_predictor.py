"""The predictor against its pipeline, for every kind of row and both backends."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, RandomForestClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from dosel.errors import RegistryError, UntrustedModel
from dosel.model import bundle
from dosel.model.encoding import Encoder, fitted_steps
from dosel.model.onnx.classifier import conversions
from dosel.model.predictor import Predictor, ScikitLearnDecides
from dosel.rows import frames
from dosel.rows.columns import Columns
from dosel.training.preprocessing import pipeline
from dosel.usecases.covertype import COVERTYPE

NUMBERS = [number.name for number in COVERTYPE.numbers]


def table(count: int, seed: int) -> pd.DataFrame:
    """Valid rows of the declared types."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        n.name: rng.integers(int(n.minimum), int(n.maximum) + 1, count) for n in COVERTYPE.numbers
    }
    columns |= {c.name: rng.choice(c.values, count) for c in COVERTYPE.categories}
    return frames.canonical(COVERTYPE, pd.DataFrame(columns))


def fitted(classifier: Any) -> Any:
    features = table(400, seed=1)
    return pipeline(COVERTYPE, clone(classifier)).fit(features, 1 + features["Elevation"].to_numpy() // 10 % 7)


def given(features: pd.DataFrame) -> list[dict[str, Any]]:
    rows: Any = features.to_dict("records")
    return list(rows)


def numbers_and_codes(features: pd.DataFrame) -> tuple[Any, Any]:
    codes = [pd.Categorical(features[c.name], categories=list(c.values)).codes for c in COVERTYPE.categories]
    return features[NUMBERS].to_numpy(), np.column_stack(codes).astype(np.intp)


CLASSIFIERS = {
    "forest": RandomForestClassifier(20, max_depth=12, random_state=0),
    "extra trees": ExtraTreesClassifier(10, random_state=0),
    "tree": DecisionTreeClassifier(random_state=0),
    "boosted": GradientBoostingClassifier(n_estimators=3, random_state=0),
    "linear": LogisticRegression(max_iter=300),
    "neighbours": KNeighborsClassifier(4),
    "vectors": CalibratedClassifierCV(SVC(), ensemble=False),
}
ONNX = list(CLASSIFIERS)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_predictions_equal_those_of_the_pipeline(name: str) -> None:
    model = fitted(CLASSIFIERS[name])
    predictor = Predictor(COVERTYPE, model)
    features = table(500, seed=2)
    expected = model.predict_proba(features)
    scores = predictor.scores(*numbers_and_codes(features))
    assert [predictor.classes[i] for i in scores.chosen] == list(model.predict(features))
    assert np.abs(scores.probabilities - expected).max() <= 1e-6
    numbers, codes = (part[:50].tolist() for part in numbers_and_codes(features))
    for answer, number, code in zip(predictor.predict(given(features[:50])), numbers, codes, strict=True):
        alone = predictor.one(number, code)
        assert alone.label == answer.label
        assert alone.probabilities == pytest.approx(answer.probabilities, abs=1e-6)


@pytest.mark.parametrize("name", ONNX)
def test_onnx_runtime_answers_for_supported_classifiers(name: str) -> None:
    predictor = Predictor(COVERTYPE, fitted(CLASSIFIERS[name]))
    assert (predictor.backend, predictor.fallback_reason) == ("onnx", "")


@pytest.mark.parametrize(("is_open", "decimals"), [(True, 7), (False, 3)])
def test_probabilities_of_a_closed_use_case_are_rounded(is_open: bool, decimals: int) -> None:
    """Exact ones tell whether a row was among the training rows."""
    use_case = replace(COVERTYPE, expose_training_rows=is_open)
    predictor, rows = Predictor(use_case, fitted(LogisticRegression())), given(table(50, seed=2))
    answers = [list(answer.probabilities.values()) for answer in predictor.predict(rows)]
    columns = Columns.of_rows(use_case, rows)
    scores = predictor.scores(columns.numbers, columns.codes)
    assert answers == predictor.shown(scores).tolist() == scores.probabilities.round(decimals).tolist()


def test_ties_between_classes_are_decided_by_the_model() -> None:
    """Four neighbours often tie; float32 sums of a forest's votes could decide a tie either way."""
    model = fitted(CLASSIFIERS["neighbours"])
    features = table(500, seed=3)
    expected = np.sort(model.predict_proba(features), axis=1)
    assert (expected[:, -1] == expected[:, -2]).any()
    answers = Predictor(COVERTYPE, model).predict(given(features))
    assert [answer.prediction for answer in answers] == list(model.predict(features))


@pytest.mark.parametrize(
    "changed",
    [{"Elevation": 2544.0}, {"Elevation": 2544}, {"Soil_Type": "C1"}, {"Soil_Type": None}, {"Wilderness_Area": ""}],
    ids=str,
)
def test_unusual_values_get_the_pipelines_predictions(changed: dict[str, Any]) -> None:
    model = fitted(CLASSIFIERS["forest"])
    row = COVERTYPE.example | changed
    [answer] = Predictor(COVERTYPE, model).predict([row])
    [expected] = model.predict_proba(frames.frame(COVERTYPE, [row]))
    assert list(answer.probabilities.values()) == pytest.approx(list(expected), abs=1e-6)


def test_a_missing_number_is_passed_to_the_model() -> None:
    missing = COVERTYPE.example | {"Slope": float("nan")}
    with pytest.raises(ValueError, match="NaN"):
        Predictor(COVERTYPE, fitted(CLASSIFIERS["linear"])).predict([missing])
    model = fitted(CLASSIFIERS["forest"])
    [answer] = Predictor(COVERTYPE, model).predict([missing])
    assert answer.prediction == model.predict(frames.frame(COVERTYPE, [missing]))[0]


def test_the_encoding_equals_the_preprocessing_bit_for_bit() -> None:
    model = fitted(CLASSIFIERS["tree"])
    features = table(300, seed=4)
    encoder = Encoder(COVERTYPE, fitted_steps(COVERTYPE, model[0]))
    encoded = encoder.encode(*numbers_and_codes(features))
    assert np.array_equal(encoded, model[0].transform(features))
    for column in range(encoder.width):
        if (found := encoder.decode(column, encoded[:, column])) is not None:
            number, values = found
            assert values == pytest.approx(features[NUMBERS[number]].to_numpy())


def test_the_parity_check_on_held_out_rows_rejects_a_different_onnx_model(caplog: pytest.LogCaptureFixture) -> None:
    model, other = fitted(CLASSIFIERS["forest"]), fitted(RandomForestClassifier(20, max_depth=12, random_state=5))
    held_out = table(300, seed=6)
    agreed = Predictor(COVERTYPE, model)
    proof = agreed.check_parity(held_out)
    assert proof is not None
    assert (proof.rows, proof.differ, agreed.backend) == (300, 0, "onnx")
    # An ONNX model that was accepted without a check, and belongs to another model.
    overruled = Predictor(COVERTYPE, model, Predictor(COVERTYPE, other).onnx)
    overruled.check_parity(held_out)
    assert (overruled.backend, overruled.onnx) == ("scikit-learn", None)
    assert "300 rows" in overruled.fallback_reason
    assert overruled.fallback_reason in caplog.text
    assert [a.prediction for a in overruled.predict(given(held_out))] == list(model.predict(held_out))
    again = Predictor(COVERTYPE, model, fallback_reason=overruled.fallback_reason)
    assert (again.backend, again.fallback_reason) == ("scikit-learn", overruled.fallback_reason)


def filling(imputer: Any) -> Any:
    """A pipeline that imputes missing numbers."""
    at = [list(range(len(NUMBERS)))]
    scaling = ColumnTransformer([("minmax", MinMaxScaler(), at[0][:4]), ("standard", StandardScaler(), at[0][4:])])
    known = [list(category.values) for category in COVERTYPE.categories]
    words = [category.name for category in COVERTYPE.categories]
    numbers = Pipeline([("impute", imputer), ("scale", scaling)])
    steps = ColumnTransformer(
        [
            ("one_hot", OneHotEncoder(categories=known, handle_unknown="ignore", sparse_output=False), words),
            ("numbers", numbers, NUMBERS),
        ]
    )
    return Pipeline([("preprocess", steps), ("classifier", CLASSIFIERS["forest"])])


def with_gaps(count: int, seed: int) -> pd.DataFrame:
    features, rng = table(count, seed), np.random.default_rng(seed)
    for name in NUMBERS:
        features.loc[rng.random(count) < 0.1, name] = np.nan
    return features


def test_onnx_runtime_answers_rows_with_imputed_numbers() -> None:
    features = with_gaps(400, seed=1)
    model = filling(IterativeImputer(random_state=0)).fit(features, 1 + np.arange(400) % 7)
    predictor = Predictor(COVERTYPE, model)
    assert (predictor.backend, predictor.fallback_reason) == ("onnx", "")
    asked = with_gaps(200, seed=2)
    scores = predictor.scores(*numbers_and_codes(asked))
    assert np.abs(scores.probabilities - model.predict_proba(asked)).max() <= 1e-6
    numbers, codes = (part[:20].tolist() for part in numbers_and_codes(asked))
    alone = [predictor.one(number, code).prediction for number, code in zip(numbers, codes, strict=True)]
    assert alone == list(model.predict(asked[:20]))


class Own(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that no converter supports."""

    def fit(self, x: Any, y: Any) -> "Own":
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, x: Any) -> Any:
        return np.tile(np.arange(len(self.classes_)) / 21, (len(x), 1))


def test_scikit_learn_answers_for_a_model_that_cannot_be_converted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        predictor = Predictor(COVERTYPE, fitted(Own()))
    assert (predictor.backend, predictor.onnx) == ("scikit-learn", None)
    assert "Own cannot be converted" in predictor.fallback_reason
    assert predictor.fallback_reason in caplog.text
    assert predictor.predict([COVERTYPE.example])[0].prediction == 7


def test_a_conversion_with_other_predictions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from dosel.model import predictor as module

    other = fitted(RandomForestClassifier(20, max_depth=12, random_state=5))
    monkeypatch.setattr(module, "conversions", lambda _, width: conversions(other[-1], width))
    model = fitted(CLASSIFIERS["forest"])
    predictor = Predictor(COVERTYPE, model)
    assert predictor.backend == "scikit-learn"
    assert "labels differ" in predictor.fallback_reason
    assert predictor.predict([COVERTYPE.example])[0].prediction == model.predict(
        frames.frame(COVERTYPE, [COVERTYPE.example])
    )


def test_a_stored_onnx_model_is_used_without_another_parity_check() -> None:
    model = fitted(CLASSIFIERS["forest"])
    proven = Predictor(COVERTYPE, model)
    again = Predictor(COVERTYPE, model, proven.onnx)
    assert (again.backend, again.onnx) == ("onnx", proven.onnx)
    assert again.predict([COVERTYPE.example]) == proven.predict([COVERTYPE.example])


@pytest.mark.parametrize("name", [bundle.ONNX_FILE, bundle.ENCODER_FILE, bundle.BACKEND_FILE])
@pytest.mark.parametrize("change", [lambda file: file.write_bytes(b"{}"), Path.unlink], ids=["changed", "removed"])
def test_a_file_that_changes_after_it_was_verified_is_not_used(
    name: str, change: Callable[[Path], object], tmp_path: Path
) -> None:
    bundle.write_backend(Predictor(COVERTYPE, fitted(CLASSIFIERS["forest"])), tmp_path)
    digests = bundle.hash_files(tmp_path)
    assert bundle.read_backend(tmp_path, digests) == bundle.read_backend(tmp_path)
    change(tmp_path / bundle.BACKEND_FOLDER / name)
    with pytest.raises(UntrustedModel, match=f"{name} was changed"):
        bundle.read_backend(tmp_path, digests)


def test_only_a_near_tie_reads_the_model(tmp_path: Path) -> None:
    model, read = fitted(CLASSIFIERS["neighbours"]), []
    proven = Predictor(COVERTYPE, model)
    bundle.write_backend(proven, tmp_path)
    stored = bundle.read_backend(tmp_path)
    assert stored.encoder is not None
    assert stored.onnx is not None

    def read_model() -> Any:
        read.append(1)
        return model

    predictor = Predictor.stored(COVERTYPE, stored.encoder, stored.onnx, read_model)
    asked = table(200, seed=2)
    numbers, codes = (part.tolist() for part in numbers_and_codes(asked))
    best = np.sort(model.predict_proba(asked), axis=1)
    tied, clear = (int(np.flatnonzero(found)[0]) for found in (best[:, -1] == best[:, -2], best[:, -1] > best[:, -2]))
    assert predictor.one(numbers[clear], codes[clear], wait=False) == proven.one(numbers[clear], codes[clear])
    with pytest.raises(ScikitLearnDecides):
        predictor.one(numbers[tied], codes[tied], wait=False)
    assert read == []
    for _ in range(2):
        assert predictor.one(numbers[tied], codes[tied]) == proven.one(numbers[tied], codes[tied])
    assert read == [1]
    # Also with the model in memory: it takes milliseconds, in which the API answers nobody else.
    with pytest.raises(ScikitLearnDecides):
        predictor.one(numbers[tied], codes[tied], wait=False)


def test_undeclared_classes_are_refused() -> None:
    features = table(100, seed=1)
    model = pipeline(COVERTYPE, DecisionTreeClassifier()).fit(features, np.arange(100) % 2 + 90)
    with pytest.raises(RegistryError, match=r"does not declare: \[90, 91\]"):
        Predictor(COVERTYPE, model)
