"""Reading models: only skops files, and only types on dosel's own list."""

import pickle
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestClassifier

from dosel.errors import UntrustedModel
from dosel.model import bundle
from dosel.training.preprocessing import pipeline
from dosel.usecases import ALL, UseCase

BUILT: list[str] = []


class Foreign(BaseEstimator):  # type: ignore[misc]
    """An untrusted type that records each time it is constructed."""

    def __init__(self) -> None:
        BUILT.append("built")

    def __setstate__(self, state: dict[str, Any]) -> None:
        BUILT.append("built")


def folder(at: Path, model: Any) -> Path:
    skops.io.dump(model, at / "model.skops")
    return at


def test_a_forest_predicts_the_same_after_reading(tmp_path: Path) -> None:
    x, y = np.arange(40.0).reshape(20, 2), np.repeat([1, 2], 10)
    model = RandomForestClassifier(5, random_state=0).fit(x, y)
    again = bundle.read_estimator(folder(tmp_path, model))
    assert (again.predict_proba(x) == model.predict_proba(x)).all()


@pytest.mark.parametrize("use_case", ALL, ids=lambda u: u.name)
def test_every_declared_family_can_be_written_and_read(use_case: UseCase, tmp_path: Path) -> None:
    for candidate in use_case.families:
        bundle.read_estimator(folder(tmp_path, pipeline(use_case, candidate.build(0))))


def test_an_untrusted_type_is_named_and_never_constructed(tmp_path: Path) -> None:
    written = folder(tmp_path, Foreign())
    BUILT.clear()
    with pytest.raises(UntrustedModel, match=rf"{tmp_path.name} contains types that are not trusted.*Foreign"):
        bundle.read_estimator(written)
    assert BUILT == []


def test_trusted_types_in_an_mlmodel_file_are_ignored(tmp_path: Path) -> None:
    """MLflow itself would read the list of trusted types from the MLmodel file."""
    written = folder(tmp_path, Foreign())
    flavor = "flavors: {sklearn: {skops_trusted_types: [test_formats.Foreign]}}\n"
    (written / "MLmodel").write_text(flavor)
    with pytest.raises(UntrustedModel):
        bundle.read_estimator(written)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(RandomForestClassifier()))
    with pytest.raises(UntrustedModel, match=r"has no model\.skops"):
        bundle.read_estimator(tmp_path)


def test_an_open_estimator_is_read_after_its_folder_is_gone(tmp_path: Path) -> None:
    written = folder(tmp_path, RandomForestClassifier(3))
    kept = bundle.EstimatorFile(written, bundle.hash_files(written)["model.skops"])
    (written / "model.skops").unlink()
    assert kept.read().n_estimators == 3


def test_another_process_reads_an_open_estimator(tmp_path: Path) -> None:
    written = folder(tmp_path, RandomForestClassifier(3))
    kept = bundle.EstimatorFile(written, bundle.hash_files(written)["model.skops"])
    # As a predictor holds it.
    read = pickle.loads(pickle.dumps(kept.read))
    assert read().n_estimators == 3


def test_an_open_estimator_that_was_changed_is_not_read(tmp_path: Path) -> None:
    written = folder(tmp_path, RandomForestClassifier(3))
    kept = bundle.EstimatorFile(written, bundle.hash_files(written)["model.skops"])
    with (written / "model.skops").open("wb") as file:
        skops.io.dump(Foreign(), file)
    BUILT.clear()
    with pytest.raises(UntrustedModel, match=r"model\.skops was changed on this machine's disk"):
        kept.read()
    assert BUILT == []


def test_requirements_pin_the_installed_versions() -> None:
    assert f"scikit-learn=={version('scikit-learn')}" in bundle.requirements()
    assert all("==" in requirement for requirement in bundle.requirements())


def test_an_error_names_ten_files_and_counts_the_others() -> None:
    found = {f"extra-{number:03}": "d" for number in range(1_000)} | {"x" * 5_000: "d", "MLmodel": "d"}
    text = bundle.differences({"MLmodel": "other", "serving/form.json": "d"}, found)
    named = ", ".join(f"extra-{number:03}" for number in range(10))
    assert text == f"serving/form.json missing; {named}, 991 more not in the manifest; MLmodel changed"
    assert len(bundle.differences({}, {"x" * 5_000: "d"})) < 100
