"""A small installation for tests of the prediction API: models fitted on a few rows, in a real MLflow store."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.tree import DecisionTreeClassifier

from app.http import metrics
from app.main import MLFLOW_DEFAULTS
from dosel.db.engine import connect
from dosel.model import fingerprint, reference, tags
from dosel.model.digest import digest
from dosel.model.facts import Facts
from dosel.registry.ledger import PromotionLedger
from dosel.registry.registry import Registry
from dosel.rows import frames
from dosel.settings import Settings
from dosel.training import tracking
from dosel.training.preprocessing import pipeline
from dosel.usecases import ALL, UseCase, named
from dosel.usecases.covertype import COVERTYPE
from tests.conftest import locked, shared_folder
from tests.integration.stores import copy_database

EXPERIMENT = "small"


@dataclass
class Installation:
    """An MLflow store with runs, and the registry of its versions.

    Attributes:
        good: two runs of covertype; only the first one's model was logged with its training rows.
        strange: a run of covertype whose model has undeclared classes.
        others: a run of each other use case, by its name.
    """

    settings: Settings
    store: str
    registry: Registry
    good: tuple[str, str]
    strange: str
    others: Mapping[str, str]

    def promote(self, run_id: str, use_case: UseCase = COVERTYPE) -> int:
        # With a file store, MLflow finds a run's model by the tracking URI of the process.
        mlflow.set_tracking_uri(self.store)
        version = self.registry.register(use_case, run_id)
        self.registry.promote(version, "a test", "to see it answer")
        return version.version

    def promote_others(self) -> None:
        """Put a model of every other use case into Production."""
        for name, run_id in self.others.items():
            self.promote(run_id, named(name))


@pytest.fixture(autouse=True)
def each_scrape_shows_the_present(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn off that scrapes within a second share a text, in the apps of this process."""
    monkeypatch.setattr(metrics, "PERIOD_SECONDS", 0.0)


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Installation]]:
    """Make installations that share only the files of their models.

    With `in_production=True`, the first good run is version 1, in Production.
    """
    template = shared_folder(tmp_path_factory) / "store"
    with pytest.MonkeyPatch.context() as environment:
        # The app would otherwise set these variables for all later tests.
        for name, value in MLFLOW_DEFAULTS.items():
            environment.setenv(name, value)
        good, strange, others = _trained(template)

        @cache
        def promoted() -> Path:
            here = made()
            here.promote(here.good[0])
            return here.settings.home

        def made(in_production: bool = False, **changed: Any) -> Installation:
            folder = tmp_path_factory.mktemp("installation")
            for name in ("mlflow.db", "warehouse.db"):
                copy_database((promoted() if in_production else template) / name, folder / name)
            store, warehouse = f"sqlite:///{folder / 'mlflow.db'}", f"sqlite:///{folder / 'warehouse.db'}"
            mlflow.set_tracking_uri(store)
            settings = Settings.model_validate(
                {"home": folder, "tracking_uri": store, "warehouse_url": warehouse, "poll_seconds": 0.2} | changed
            )
            return Installation(
                settings, store, Registry(store, PromotionLedger(connect(warehouse))), good, strange, others
            )

        yield made


def _trained(folder: Path) -> tuple[tuple[str, str], str, dict[str, str]]:
    """The runs of `_train`; the first worker trains, and the others wait for it."""
    runs = folder / "runs.json"
    with locked(folder):
        if not runs.exists():
            engine = connect(f"sqlite:///{folder / 'warehouse.db'}")
            runs.write_text(json.dumps(_train(folder, PromotionLedger(engine))))
            engine.dispose()
    (first, second), strange, others = json.loads(runs.read_text())
    return (first, second), strange, others


def _train(folder: Path, ledger: PromotionLedger) -> tuple[tuple[str, str], str, dict[str, str]]:
    """Log the models as a training does, and return their runs."""
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.create_experiment(EXPERIMENT, artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment(EXPERIMENT)
    features, classes = _rows(COVERTYPE, 200)
    trees = [DecisionTreeClassifier(max_depth=depth, random_state=0) for depth in (2, 5)]
    seen = reference.write(COVERTYPE, features, classes, folder)
    first, second = (
        _log(ledger, pipeline(COVERTYPE, tree).fit(features, classes), *beside)
        for tree, beside in zip(trees, ([seen], []), strict=True)
    )
    strange = _log(ledger, pipeline(COVERTYPE, DummyClassifier()).fit(features, classes + 90))
    others = {}
    for use_case in ALL:
        if use_case is not COVERTYPE:
            others[use_case.name] = fitted(ledger, use_case)
    return (first, second), strange, others


def fitted(ledger: PromotionLedger, use_case: UseCase) -> str:
    """The run of a small tree for a use case, fitted on generated rows."""
    model = pipeline(use_case, DecisionTreeClassifier(max_depth=2, random_state=0))
    return _log(ledger, model.fit(*_rows(use_case, 200)), use_case=use_case)


def _log(ledger: PromotionLedger, model: Any, *beside: Path, use_case: UseCase = COVERTYPE) -> str:
    facts = Facts(
        metrics={"holdout_accuracy": 0.5, "holdout_undefined": float("nan")},
        params={"seed": "0"},
        tags={
            tags.FAMILY: use_case.families[0].name,
            tags.DATA_DIGEST: "0" * 64,
            tags.BATCH_IDS: "[1, 2]",
            tags.ROWS_TRAIN: "140",
            tags.MODEL_DIGEST: digest(model),
        },
        declaration=fingerprint.declaration(use_case),
    )
    with mlflow.start_run() as run:
        mlflow.log_metrics(dict(facts.metrics))
        mlflow.log_params(dict(facts.params))
        mlflow.set_tags(dict(facts.tags))
        tracking.log_model(use_case, run, model, facts, ledger, beside)
    return str(run.info.run_id)


def _rows(use_case: UseCase, count: int) -> tuple[pd.DataFrame, Any]:
    """Valid rows, and classes that follow from the first number."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {
        n.name: rng.integers(int(n.minimum), int(n.maximum) + 1, count) for n in use_case.numbers
    }
    columns |= {c.name: rng.choice(c.values, count) for c in use_case.categories}
    table = frames.canonical(use_case, pd.DataFrame(columns))
    first, codes = use_case.numbers[0], np.array(list(use_case.target.labels))
    share = (table[first.name].to_numpy() - first.minimum) / (first.maximum - first.minimum + 1)
    return table, codes[(share * len(codes)).astype(int)]
