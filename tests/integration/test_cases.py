"""Every use case from its rows to Production: the published penguins and generated employees."""

import hashlib
import io
import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from dosel.db.engine import connect
from dosel.model import tags
from dosel.model.predictor import Predictor
from dosel.pipeline import Pipeline
from dosel.settings import Settings
from dosel.sources.lake import PROCESSED, open_lake
from dosel.usecases import GeneratedRows, UseCase
from dosel.usecases.employees import EMPLOYEES
from dosel.usecases.penguins import PENGUINS
from dosel.warehouse.batches import BatchStore

MADE = 600


@pytest.fixture
def settings(tracking_uri: str, warehouse_url: str, tmp_path: Path) -> Settings:
    """Settings with few trials for both kinds of stores; the lake is a folder or a server."""
    return Settings(home=tmp_path, tracking_uri=tracking_uri, warehouse_url=warehouse_url, trials=3, jobs=1)


def fewer(use_case: UseCase) -> UseCase:
    """The use case with the first of its generated rows only."""
    declared: Any = use_case.rows
    made = GeneratedRows(lambda: islice(declared.otherwise.generate(), MADE), "fewer rows")
    return replace(use_case, rows=replace(declared, otherwise=made))


@pytest.fixture
def employees() -> UseCase:
    return fewer(EMPLOYEES)


@pytest.mark.soak
def test_a_model_of_the_published_penguins_enters_production_and_answers(settings: Settings) -> None:
    pipeline = Pipeline(PENGUINS, settings)
    [record] = pipeline.ingest(pipeline.source())
    assert (record.rows_received, record.rows_clean, record.rows_refused) == (344, 333, 11)
    run_id = pipeline.train()
    number = pipeline.register(run_id)
    outcome = pipeline.challenge(number, "a test")
    assert outcome.promoted, outcome.reason
    client = MlflowClient(settings.tracking_uri)
    assert client.get_run(run_id).data.metrics["holdout_accuracy"] >= 0.97
    # Each family has a version with its own alias; the family with the best cross-validation score is in Production.
    found = client.get_registered_model(PENGUINS.model_name).aliases
    assert set(found) == {"production", *(family.name for family in PENGUINS.families)}
    assert found["production"] == found[client.get_run(run_id).data.tags[tags.BEST_FAMILY]]
    assert pipeline.register(run_id) == number
    for family in PENGUINS.families:
        version = pipeline.registry.version(PENGUINS.model_name, int(found[family.name]))
        assert version.tags[tags.FAMILY] == family.name
        [answer] = Predictor(PENGUINS, pipeline.registry.load(version)).predict([PENGUINS.example])
        assert answer.label == "Adelie"
    assert not pipeline.training_due()
    assert pipeline.ingest(pipeline.source()) == []


def test_missing_values_are_still_missing_after_the_warehouse(settings: Settings, employees: UseCase) -> None:
    pipeline = Pipeline(employees, settings)
    [record] = pipeline.ingest(pipeline.source())
    assert record.rows_clean + record.rows_refused == MADE
    clean = BatchStore(connect(settings.warehouse_url), employees).clean()
    for number in employees.numbers:
        share = clean[number.name].isna().mean()
        assert 0.02 < share < 0.2 if number.optional else share == 0
    assert set(clean[employees.target.name]) == {0, 1, 2}


def test_process_logs_a_run_and_writes_the_training_sets_to_the_lake(settings: Settings, employees: UseCase) -> None:
    pipeline = Pipeline(employees, settings)
    assert pipeline.process() is None
    [record] = pipeline.ingest(pipeline.source())
    run_id = pipeline.process()
    assert run_id is not None
    assert pipeline.process() == run_id
    run = MlflowClient(settings.tracking_uri).get_run(run_id)
    metrics, params = run.data.metrics, run.data.params
    assert (metrics["rows_received"], metrics["rows_clean"]) == (MADE, record.rows_clean)
    assert metrics["rows_train"] + metrics["rows_test"] == record.rows_clean
    assert (params["imputer"], params["class_cuts"]) == ("iterative", "[0.33, 0.66]")
    figures = {file.path for file in MlflowClient(settings.tracking_uri).list_artifacts(run_id, "figures")}
    assert figures == {"figures/classes.png", "figures/missing.png", "figures/numbers.png"}
    for part, kept in json.loads(run.data.tags[tags.PROCESSED]).items():
        place, _, key = kept["address"].partition(f"{PROCESSED}/")
        assert place == ("s3://" if settings.s3_endpoint else f"{settings.home}/lake/")
        content = open_lake(settings).get(PROCESSED, key)
        assert content is not None
        assert hashlib.sha256(content).hexdigest() == kept["sha256"]
        made = pd.read_parquet(io.BytesIO(content))
        assert len(made) == metrics[f"rows_{part}"]
        for number in employees.numbers:
            gone = metrics[f"{part}_missing_before_{number.name}"]
            assert (gone > 0) is number.optional
            assert metrics[f"{part}_missing_after_{number.name}"] == made[number.name].isna().sum() == 0
            assert metrics[f"{part}_mean_{number.name}"] == pytest.approx(made[number.name].mean())
        assert set(made.columns) > {"gender_Female", "gender_Male", employees.target.name}
    # The scaler is fitted on the training rows alone.
    assert metrics["train_mean_sleep_hours"] == pytest.approx(0, abs=1e-9)


@pytest.mark.soak
def test_every_family_of_employees_answers_rows_with_missing_values(settings: Settings, employees: UseCase) -> None:
    pipeline = Pipeline(employees, settings)
    pipeline.ingest(pipeline.source())
    run_id = pipeline.train()
    number = pipeline.register(run_id)
    assert pipeline.challenge(number, "a test").promoted
    card = pipeline.registry.card(employees, pipeline.registry.version(employees.model_name, number))
    of_groups = {figure.slice for figure in card.figures if figure.slice.startswith("gender")}
    assert of_groups == {"gender: Female", "gender: Male"}
    client = MlflowClient(settings.tracking_uri)
    for family, of in json.loads(client.get_run(run_id).data.tags[tags.FAMILIES]).items():
        run = client.get_run(of)
        trials = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{of}'")
        assert len(trials) == 3
        assert {trial.data.tags[tags.FAMILY] for trial in trials} == {family}
        for forbidden in ("@", "://"):
            assert not any(forbidden in value for value in run.data.params.values())
        newest = pipeline.registry.newest_of(employees.model_name, family)
        assert newest is not None
        model = pipeline.registry.load(pipeline.registry.version(employees.model_name, newest))
        predictor = Predictor(employees, model)
        row = employees.example | {n.name: None for n in employees.numbers if n.optional}
        [answer], accuracy = predictor.predict([row]), 10**-employees.decimals
        [expected] = model.predict_proba(pd.DataFrame([row]).astype({n.name: float for n in employees.numbers}))
        assert list(answer.probabilities.values()) == pytest.approx(expected, abs=accuracy)
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=3 * accuracy)
