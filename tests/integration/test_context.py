"""The context without labels: computed when batches are scored, shown by health, and never an alarm."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from rich.console import Console
from sqlalchemy import select

from app.schemas.health import ContextInfo
from dosel.db.tables import EVENTS
from dosel.model import bundle
from dosel.model.predictor import Predictor
from dosel.monitor import context
from dosel.monitor.context import Context, read_context, update_context
from dosel.pipeline import Pipeline
from dosel.rows.columns import Columns
from dosel.rows.hashing import feature_keys
from dosel.terminal import context_table
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.predictions import AnswerRecord, PredictionStore
from dosel.wording import NEEDS_LABELS, NO_CONTEXT
from tests.integration.test_watch import health_of, with_wrong_labels
from tests.integration.worlds import Deliveries, World, batch

Received = Callable[..., list[list[str]]]
NUMBERS = {number.name for number in COVERTYPE.numbers}


@pytest.fixture
def champion(world: World) -> Pipeline:
    world.enter("good")
    return world.pipeline("good")


@pytest.fixture
def frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute the context at every update, however few answers are new."""
    monkeypatch.setattr(context, "REFRESH", timedelta(0))
    monkeypatch.setattr(context, "TEST_SECONDS", 0.0)


def answer(champion: Pipeline, received: list[list[str]], higher: float = 0) -> None:
    """Log the answers of the version in Production on these rows, with the elevation raised by `higher` metres."""
    rows = [
        {n: float(v) if n in NUMBERS else v for n, v in zip(COVERTYPE.feature_names, row, strict=False)}
        for row in received
    ]
    rows = [row | {"Elevation": float(row["Elevation"]) + higher} for row in rows]
    version = champion.registry.version(COVERTYPE.model_name, 1)
    answers = Predictor(COVERTYPE, champion.registry.load(version)).predict(rows)
    keys = feature_keys(COVERTYPE, Columns.of_rows(COVERTYPE, rows)).tolist()
    now = time.time()
    records = [
        AnswerRecord(
            *(f"{now}-{place}", 1, 1, None, now, COVERTYPE.name, version.name, version.version, json.dumps(row), key),
            *(json.dumps(given.probabilities), given.prediction),
        )
        for place, (row, key, given) in enumerate(zip(rows, keys, answers, strict=True))
    ]
    PredictionStore(champion._engine, 10_000_000).append(records)


def context_of(champion: Pipeline) -> Context:
    found = health_of(champion).context
    assert found is not None
    return found


def printed(found: Context | None) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(context_table(found))
    return " ".join(captured.get().split())


@pytest.mark.soak
@pytest.mark.usefixtures("frequent")
def test_scoring_computes_the_context_of_new_answers_without_an_alarm(champion: Pipeline, received: Received) -> None:
    answer(champion, received(99, seed=50))
    champion.score()
    assert health_of(champion).context is None
    assert NO_CONTEXT in printed(None)

    answer(champion, received(150, seed=51), higher=300)
    champion.score()
    found = context_of(champion)
    assert found.answers == 249
    assert found.features[0].name == "Elevation"
    assert " m → 3," in str(found.features[0].change)
    assert "of the rows are unlike the held-out rows" in found.estimate.refused
    assert not update_context(COVERTYPE, champion.registry, champion._engine, seconds=0), "there is no new answer"
    assert "Elevation" in printed(found)
    assert ContextInfo.model_validate(found).features[0].change == found.features[0].change
    with champion._engine.connect() as connection:
        assert set(connection.scalars(select(EVENTS.c.kind))) == {"promoted"}, "a shift is no event"


@pytest.mark.soak
@pytest.mark.usefixtures("frequent")
def test_concept_drift_does_not_change_the_context_which_says_so(champion: Pipeline, received: Received) -> None:
    rows = received(150, seed=6)
    answer(champion, rows)
    champion.score()
    before = context_of(champion)
    champion.ingest(Deliveries(batch(with_wrong_labels(rows), 2)))
    answer(champion, rows)
    champion.score()
    assert health_of(champion).state == "harmed"
    after = context_of(champion)
    assert after.answers == 2 * before.answers
    effects = {feature.name: feature.effect for feature in before.features}
    assert {feature.name: feature.effect for feature in after.features} == pytest.approx(effects)
    assert after.outside == before.outside
    assert NEEDS_LABELS in printed(after)


def test_a_version_without_reference_rows_has_an_unknown_context(
    champion: Pipeline, received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "read_held_out", lambda folder: None)
    monkeypatch.setattr(bundle, "read_reference", lambda folder: None)
    answer(champion, received(120, seed=8))
    assert update_context(COVERTYPE, champion.registry, champion._engine, seconds=0)
    answer(champion, received(10, seed=9))
    assert not update_context(COVERTYPE, champion.registry, champion._engine, seconds=0), "it is too early"
    found = context_of(champion)
    assert found.estimate.refused.startswith("not known")
    assert found.unknown.startswith("not known")
    assert (found.two_sample, found.outside, found.features) == (None, None, ())
    assert printed(found).count("not known") == 2


def test_after_a_feature_was_added_only_the_comparison_with_training_rows_is_unknown(
    champion: Pipeline, received: Received
) -> None:
    answer(champion, received(120, seed=8))
    added = replace(COVERTYPE.numbers[0], name="Moisture", optional=True)
    declared = replace(COVERTYPE, features=(*COVERTYPE.features, added))
    assert update_context(declared, champion.registry, champion._engine, seconds=0)
    found = context_of(champion)
    assert found.estimate.thin is not None
    assert "Moisture differ; train again" in found.unknown


def test_the_context_of_a_closed_use_case_is_rounded_and_has_no_values(champion: Pipeline, received: Received) -> None:
    answer(champion, received(120, seed=8), higher=300)
    assert update_context(COVERTYPE, champion.registry, champion._engine, seconds=0)
    entry = champion.registry.last_promotion(COVERTYPE.model_name)
    assert entry is not None
    with champion._engine.connect() as connection:
        exact = read_context(connection, COVERTYPE, entry)
        found = read_context(connection, replace(COVERTYPE, expose_training_rows=False), entry)
    assert found is not None
    assert exact is not None
    assert re.match(r"\d+% of the rows are unlike", exact.estimate.refused)
    assert found.estimate.refused.startswith("…% of the rows are unlike")
    figures = [figure for f in found.features for figure in (f.effect, f.by_chance, f.outside)]
    assert all(figure == pytest.approx(round(figure * 20) / 20) for figure in figures)
    assert {feature.change for feature in found.features} == {None}
    assert "median" not in printed(found)
