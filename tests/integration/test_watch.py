"""Scoring: the version in Production answers each labelled batch once, before any training uses it."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.serving.answer_writer import DirectWriter
from app.serving.prediction_log import LogEntry, PredictionLog
from dosel.monitor.health import Health
from dosel.monitor.watch import Watch
from dosel.pipeline import Pipeline
from dosel.rows.json import JsonReader
from dosel.usecases.covertype import COVERTYPE
from tests.integration.worlds import FAMILIES, Deliveries, World, batch

Received = Callable[..., list[list[str]]]


@pytest.fixture
def champion(world: World) -> Pipeline:
    """A pipeline with a good version in Production."""
    world.entered("good")
    return world.pipeline("good")


def health_of(pipeline: Pipeline) -> Health:
    health = pipeline.health()
    assert health is not None
    return health


def with_wrong_labels(rows: list[list[str]]) -> list[list[str]]:
    """Each row with the label of another class."""
    return [[*row[:-1], str(int(row[-1]) % 7 + 1)] for row in rows]


def test_nothing_is_scored_without_a_version_in_production(world: World) -> None:
    assert world.pipeline().score() == []
    assert world.pipeline().health() is None


def test_training_rows_of_the_version_do_not_count(champion: Pipeline) -> None:
    assert champion.score() == []
    assert health_of(champion).labels == 0


def test_a_new_batch_counts_once_without_its_duplicates_and_refused_rows(
    champion: Pipeline, world: World, received: Received
) -> None:
    rows = received(120, seed=5)
    refused = [*rows[0][:-1], "99"]
    [record] = champion.ingest(Deliveries(batch([*rows, rows[3], world.rows[0], refused], 2)))
    assert (record.rows_clean, record.rows_duplicate, record.rows_refused) == (120, 2, 1)
    assert champion.score() == [record.id]
    assert champion.score() == []
    assert health_of(champion).labels == 120


def test_a_version_of_another_declaration_scores_nothing(
    champion: Pipeline, world: World, received: Received, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise the failed task would keep the training of the next version from starting."""
    champion.ingest(Deliveries(batch(received(120, seed=5), 2)))
    first, *others = COVERTYPE.features
    declared = replace(FAMILIES["good"], features=(replace(first, revision=2), *others))
    assert Pipeline(declared, world.settings).score() == []
    assert "nothing is scored" in caplog.text
    assert "revision was 1, is 2" in caplog.text
    assert Pipeline(declared, world.settings).training_due()
    assert len(champion.score()) == 1


def test_the_promised_accuracy_comes_from_the_gates_counts(champion: Pipeline, received: Received) -> None:
    accuracy = health_of(champion).findings[0]
    entry = champion.registry.last_promotion(COVERTYPE.model_name)
    assert entry is not None
    assert accuracy.promised is not None
    assert accuracy.promised.rate == pytest.approx(entry.evidence.metrics_after["accuracy"])
    assert accuracy.state == "unknown"


def test_unchanged_rows_prove_no_harm(champion: Pipeline, received: Received) -> None:
    champion.ingest(Deliveries(*(batch(received(300, seed=10 + i), 2 + i) for i in range(3))))
    champion.score()
    health = health_of(champion)
    assert health.labels == 900
    assert health.state != "harmed"
    assert [point.labels for point in health.course] == [300, 600, 900]


@pytest.mark.parametrize("is_open", [True, False])
def test_the_log_of_a_closed_use_case_tells_nothing_about_single_rows(
    world: World, champion: Pipeline, received: Received, is_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Readers' keys open Airflow's logs: after a batch of one row, an exact figure is that row's answer."""
    pipeline = Pipeline(replace(FAMILIES["good"], expose_training_rows=is_open), world.settings)
    logged = []
    for answer, seed in ((True, 5), (False, 6)):
        rows = received(1, seed=seed)
        pipeline.ingest(Deliveries(batch(rows if answer else with_wrong_labels(rows), seed)))
        caplog.clear()
        with caplog.at_level("INFO", "dosel"):
            pipeline.score()
        logged.append(re.sub(r"batch \d+", "", caplog.text))
    assert len(set(logged)) == (2 if is_open else 1)


def test_wrong_answers_prove_harm_and_the_proof_stays(champion: Pipeline, received: Received) -> None:
    champion.ingest(Deliveries(batch(with_wrong_labels(received(150, seed=6)), 2)))
    champion.score()
    bad = health_of(champion)
    assert bad.state == "harmed"
    assert bad.harmed[0].name == "accuracy"
    assert bad.harmed_since is not None
    champion.ingest(Deliveries(*(batch(received(300, seed=20 + i), 3 + i) for i in range(4))))
    champion.score()
    later = health_of(champion)
    assert later.state == "harmed"
    assert later.harmed_since == bad.harmed_since


def test_a_new_version_starts_without_labels_and_with_its_own_promise(
    world: World, champion: Pipeline, received: Received
) -> None:
    champion.ingest(Deliveries(batch(with_wrong_labels(received(150, seed=6)), 2)))
    champion.score()
    fair = world.register("fair")
    champion.registry.promote(champion.registry.version(COVERTYPE.model_name, fair), "a person", "a try")
    health = health_of(champion)
    assert (health.version, health.state) == (fair, "unknown")
    # What was evidence about one version is none about the next: only batches that come from now on are.
    assert champion.score() == []
    champion.ingest(Deliveries(batch(received(50, seed=7), 3)))
    assert len(champion.score()) == 1


def test_rows_that_showed_a_version_to_be_worse_prove_nothing_about_the_one_before_it(
    champion: Pipeline, received: Received, world: World
) -> None:
    fair = world.register("fair")
    champion.registry.promote(champion.registry.version(COVERTYPE.model_name, fair), "a person", "a try")
    champion.ingest(Deliveries(batch(with_wrong_labels(received(150, seed=6)), 2)))
    champion.score()
    champion.registry.roll_back(COVERTYPE.model_name, "a person", "it was worse")
    assert champion.score() == []
    health = health_of(champion)
    assert (health.version, health.state, health.labels) == (1, "unknown", 0)


def test_a_restored_version_keeps_the_promise_of_its_gate(world: World, champion: Pipeline, received: Received) -> None:
    promised = health_of(champion).findings[0].promised
    fair = world.register("fair")
    champion.registry.promote(champion.registry.version(COVERTYPE.model_name, fair), "a person", "a try")
    champion.registry.roll_back(COVERTYPE.model_name, "a person", "it was worse")
    assert health_of(champion).findings[0].promised == promised


def test_a_refused_version_promoted_by_a_person_has_the_gates_promise(world: World, champion: Pipeline) -> None:
    fair = world.enter("fair")
    champion.registry.promote(champion.registry.version(COVERTYPE.model_name, fair), "a person", "a try")
    promised = health_of(champion).findings[0].promised
    assert promised is not None
    assert promised.rate < 0.7


def test_a_killed_scoring_is_finished_by_the_next(
    champion: Pipeline, received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion.ingest(Deliveries(*(batch(received(50, seed=30 + i), 2 + i) for i in range(3))))
    answer, calls = Watch._answered, iter(range(2))

    def killed_at_the_third(*given: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return answer(*given)

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "_answered", killed_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            champion.score()
    assert health_of(champion).labels == 100
    champion.score()
    assert health_of(champion).labels == 150
    assert np.all(np.diff([point.labels for point in health_of(champion).course]) == 50)


def test_a_batch_row_is_the_truth_about_an_earlier_logged_answer(
    champion: Pipeline, world: World, received: Received
) -> None:
    rows = received(20, seed=40)
    row = dict(zip(COVERTYPE.feature_names, rows[3], strict=False))
    numbers, codes, _ = JsonReader(COVERTYPE).row(json.dumps(row).encode())
    answer = b'{"prediction":2,"label":"Lodgepole Pine","probabilities":{"Lodgepole Pine":1.0}}'
    log = PredictionLog(10, DirectWriter(world.settings.warehouse_url, 10_000_000, [COVERTYPE]).answers)
    log.offer(LogEntry("r-1", None, time.time(), COVERTYPE.name, COVERTYPE.model_name, 1, numbers, codes, answer))
    assert log.flush()
    champion.ingest(Deliveries(batch(rows, 2)))
    champion.score()
    health = health_of(champion)
    assert (health.labels, health.coverage.answers, health.coverage.labelled) == (20, 1, 1)
