"""A small real installation for the prediction API: models fitted on a few rows, in a real MLflow store."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.tree import DecisionTreeClassifier

from app.main import MLFLOW_DEFAULTS
from dosel import rows
from dosel.registry import Registry
from dosel.settings import Settings
from dosel.training import reference, tracking
from dosel.training.preprocessing import pipeline
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse import PromotionLedger, connect

EXPERIMENT = "small"


@dataclass
class Installation:
    """A store with three runs: two of models that answer, and `strange`, whose classes covertype has not.

    The first of the good ones has its training rows with it, the second has not, as before dosel could explain.
    """

    settings: Settings
    store: str
    registry: Registry
    good: tuple[str, str]
    strange: str

    def promote(self, run_id: str) -> int:
        # A store that is a file, and not a server, finds a run's model by this setting of the process.
        mlflow.set_tracking_uri(self.store)
        version = self.registry.register(COVERTYPE, run_id)
        self.registry.promote(version, "a test", "to see it answer")
        return version.version


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Installation]]:
    """Makes installations that share nothing but the files of their models."""
    template = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as environment:
        # Set here, so that the app does not set them for every test that comes after.
        for name, value in MLFLOW_DEFAULTS.items():
            environment.setenv(name, value)
        good, strange = _train(template)

        def made(**changed: Any) -> Installation:
            folder = tmp_path_factory.mktemp("installation")
            shutil.copy(template / "mlflow.db", folder)
            store, warehouse = f"sqlite:///{folder / 'mlflow.db'}", f"sqlite:///{folder / 'warehouse.db'}"
            settings = Settings.model_validate(
                {"home": folder, "tracking_uri": store, "warehouse_url": warehouse, "poll_seconds": 0.05} | changed
            )
            return Installation(settings, store, Registry(store, PromotionLedger(connect(warehouse))), good, strange)

        yield made


def _train(folder: Path) -> tuple[tuple[str, str], str]:
    """Logs three models; gives their runs."""
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.create_experiment(EXPERIMENT, artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment(EXPERIMENT)
    features, classes = _rows(200)
    trees = [DecisionTreeClassifier(max_depth=depth, random_state=0) for depth in (2, 5)]
    seen = reference.write(COVERTYPE, features, classes, folder)
    first, second = (
        _log(pipeline(COVERTYPE, tree).fit(features, classes), *beside)
        for tree, beside in zip(trees, ([seen], []), strict=True)
    )
    strange = _log(pipeline(COVERTYPE, DummyClassifier()).fit(features, classes + 90))
    return (first, second), strange


def _log(model: Any, *beside: Path) -> str:
    with mlflow.start_run() as run:
        tracking.log_model(model, rows.frame(COVERTYPE, [COVERTYPE.example]), *beside)
        mlflow.log_metrics({"test_accuracy": 0.5, "test_undefined": float("nan")})
        mlflow.log_param("seed", 0)
        mlflow.set_tags(
            {
                "dosel.data_digest": "0" * 64,
                "dosel.batch_ids": "[1, 2]",
                "dosel.rows_train": "140",
                "dosel.gate": "passed",
                "dosel.gate_reason": "accuracy 0.5000; nothing was in Production",
            }
        )
    return str(run.info.run_id)


def _rows(count: int) -> tuple[pd.DataFrame, Any]:
    """Acceptable rows, and classes that follow from the elevation."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {n.name: rng.integers(int(n.low), int(n.high) + 1, count) for n in COVERTYPE.numbers}
    columns |= {c.name: rng.choice(c.values, count) for c in COVERTYPE.categories}
    table = rows.canonical(COVERTYPE, pd.DataFrame(columns))
    return table, 1 + ((table["Elevation"].to_numpy() - 1800) * 7 // 2201).astype(int)
