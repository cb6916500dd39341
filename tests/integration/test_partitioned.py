"""A partitioned family goes from the data store to Production without its rows coming together in memory."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from benchmarks.dask_cluster import local_dask
from dosel.errors import TrainingError
from dosel.model import tags
from dosel.pipeline import Pipeline
from dosel.rows import frames, hashing
from dosel.settings import Settings
from dosel.sources.lake import open_lake
from dosel.training import partitions
from dosel.training.partitioned import InProcess, PartitionedData
from dosel.training.partitions import HELD_OUT
from dosel.training.preprocessing import pipeline as preprocessing
from dosel.usecases import UseCase
from dosel.usecases.check import problems
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore
from tests.integration.worlds import LENIENT, Deliveries, batch

Received = Callable[..., list[list[str]]]

LIGHTGBM = dataclasses.replace(
    COVERTYPE.families[2], space={"n_estimators": (4, 8), "num_leaves": (7,)}, partitioned=True
)
PARTITIONED = dataclasses.replace(COVERTYPE, families=(LIGHTGBM,), gate=LENIENT)


@pytest.fixture
def settings(tmp_path: Path, tracking_uri: str) -> Settings:
    return Settings(home=tmp_path, tracking_uri=tracking_uri, jobs=2)


@pytest.fixture
def pipeline(settings: Settings, received: Received) -> Pipeline:
    made = Pipeline(PARTITIONED, settings)
    made.ingest(Deliveries(*(batch(received(300, seed), seed) for seed in (1, 2, 3, 4))))
    return made


def test_a_version_is_trained_and_promoted_on_partitions(
    pipeline: Pipeline, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pipeline.batches.clean()

    def one_batch(self: BatchStore, batch_id: int | None = None) -> pd.DataFrame:
        assert batch_id is not None, "all clean rows were read at once"
        return clean(self, batch_id)

    clean = BatchStore.clean
    monkeypatch.setattr(BatchStore, "clean", one_batch)
    assert pipeline.training_due()
    number = pipeline.register(pipeline.train())
    assert pipeline.challenge(number, "test").promoted
    assert not pipeline.training_due()

    version = pipeline.registry.version(PARTITIONED.model_name, number)
    run = MlflowClient(settings.tracking_uri).get_run(version.run_id)
    assert run.data.tags[tags.DATA_DIGEST] == hashing.digest(whole["row_key"].to_numpy())
    is_held_out = hashing.is_held_out(PARTITIONED, whole)
    assert run.data.tags[tags.ROWS_TEST] == str(is_held_out.sum())
    model = pipeline.registry.load(version)
    right = model.predict(frames.canonical(PARTITIONED, whole)) == whole["Cover_Type"]
    assert run.data.metrics["holdout_accuracy"] == pytest.approx(right[is_held_out].mean())
    assert run.data.metrics["training_accuracy_score"] == pytest.approx(right[~is_held_out].mean())
    described = MlflowClient(settings.tracking_uri).get_model_version(PARTITIONED.model_name, str(number)).description
    assert described is not None
    assert "Trained on partitions" in described


def test_a_batch_is_written_once(
    pipeline: Pipeline, settings: Settings, received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = open_lake(settings)
    first = partitions.store(PARTITIONED, pipeline.batches, lake)
    assert len(first.keys) == len(set(first.keys)) == 4
    put = list[str]()
    monkeypatch.setattr(type(lake), "put", lambda _, bucket, key, content: put.append(key))
    pipeline.ingest(Deliveries(batch(received(300, 9), 9)))
    second = partitions.store(PARTITIONED, pipeline.batches, lake)
    assert second.keys[:4] == first.keys
    assert second.digest != first.digest
    assert put == [key for key in second.keys if key not in first.keys]


def test_partitions_hold_the_rows_of_the_warehouse_and_split_them_by_the_same_hash(
    pipeline: Pipeline, settings: Settings
) -> None:
    whole = pipeline.batches.clean()
    lake = open_lake(settings)
    parts = list(partitions.store(PARTITIONED, pipeline.batches, lake).read(PARTITIONED, lake))
    features = pd.concat([part.features for part in parts], ignore_index=True)
    pd.testing.assert_frame_equal(features, frames.canonical(PARTITIONED, whole))
    assert np.concatenate([part.classes for part in parts]).tolist() == whole["Cover_Type"].tolist()
    places = np.concatenate([part.places for part in parts])
    assert (places == HELD_OUT).tolist() == hashing.is_held_out(PARTITIONED, whole).tolist()
    assert np.bincount(places[places != HELD_OUT]).min() > 0.2 * len(whole) * 0.7


def test_the_preprocessing_is_that_of_all_training_rows(pipeline: Pipeline, settings: Settings) -> None:
    whole = pipeline.batches.clean()
    lake = open_lake(settings)
    stored = partitions.store(PARTITIONED, pipeline.batches, lake)
    work = PartitionedData(stored, lake, InProcess(lake, 1)).prepared(PARTITIONED).job
    training = frames.canonical(PARTITIONED, whole)[~hashing.is_held_out(PARTITIONED, whole)]
    expected = preprocessing(PARTITIONED, "passthrough")[:-1].fit(training).transform(training)
    np.testing.assert_allclose(work.matrix(lake, range(4), HELD_OUT)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.soak
def test_two_workers_train_and_evaluate_on_their_partitions(
    tmp_path: Path, tracking_uri: str, received: Received
) -> None:
    with local_dask(tmp_path, workers=2) as dask:
        settings = dask.settings.model_copy(update={"tracking_uri": tracking_uri})
        pipeline = Pipeline(PARTITIONED, settings)
        pipeline.ingest(Deliveries(*(batch(received(400, seed), seed) for seed in (1, 2, 3, 4))))
        number = pipeline.register(pipeline.train())
    version = pipeline.registry.version(PARTITIONED.model_name, number)
    whole = pipeline.batches.clean()
    held_out = whole[hashing.is_held_out(PARTITIONED, whole)]
    model = pipeline.registry.load(version)
    right = model.predict(frames.canonical(PARTITIONED, held_out)) == held_out["Cover_Type"]
    assert version.metrics["holdout_accuracy"] == pytest.approx(right.mean())
    assert right.mean() > 0.8
    declared = LIGHTGBM.build(settings.seed).set_params(num_leaves=7, n_estimators=model[-1].n_estimators)
    assert model[-1].get_params() == declared.get_params()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"families": (LIGHTGBM, COVERTYPE.families[0])}, "random_forest.*partitioned=True for every family"),
        ({"processed": True}, "processed"),
    ],
    ids=["mixed families", "processed rows"],
)
def test_a_declaration_that_needs_all_rows_at_once_is_refused(changes: dict[str, Any], problem: str) -> None:
    declared: UseCase = dataclasses.replace(PARTITIONED, **changes)
    [found] = [text for text in problems(declared) if "partitioned" in text]
    assert re.search(problem, found)


def test_only_lightgbm_trains_on_partitions(pipeline: Pipeline, settings: Settings) -> None:
    forest = dataclasses.replace(COVERTYPE.families[0], partitioned=True)
    with pytest.raises(TrainingError, match=r"random_forest.*RandomForestClassifier.*LGBMClassifier"):
        Pipeline(dataclasses.replace(PARTITIONED, families=(forest,)), settings).train()
