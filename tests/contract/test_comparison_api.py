"""Versions that are named by number: two of them side by side, and predictions by one that is not in Production."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.main import build_app
from app.serving.follower import ModelFollower
from dosel.cli import compare, output
from dosel.closed import BLOCK
from dosel.db.engine import connect
from dosel.db.tables import ANSWERS
from dosel.quality import check
from dosel.registry.report import Rule
from dosel.registry.side_by_side import ComparedFigure, Share, VersionComparison
from dosel.sources.base import Batch
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore
from external.columns import as_words
from external.generator import generate
from tests.contract.conftest import Installation
from tests.contract.test_api import EXAMPLE, NAME, Install, running, serving, wait_until

PATH = f"/models/{NAME}/compare"
COUNTS = ("rows", "both", "only_a", "only_b", "neither")


@pytest.fixture(scope="module")
def here(install: Install) -> Installation:
    """Version 1 is in Production, version 2 is registered, and a batch of 600 rows is stored."""
    made = install(in_production=True)
    made.registry.register(COVERTYPE, made.good[1])
    rows = as_words(generate(600, seed=1), 1)
    checked = check(COVERTYPE, rows, "uci")
    batch = Batch("http://data.test/data", "group 6", "e1", 1, rows, "uci")
    BatchStore(connect(made.settings.warehouse_url), COVERTYPE).store(batch, checked.accepted, checked.refused)
    return made


@pytest.fixture(scope="module")
def api(here: Installation) -> Iterator[TestClient]:
    with serving(here.settings) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        yield client


@pytest.fixture(scope="module")
def found(api: TestClient) -> dict[str, Any]:
    answer: dict[str, Any] = api.get(PATH, params={"a": 1, "b": 2}).raise_for_status().json()
    return answer


def test_both_versions_are_measured_on_the_same_held_out_rows(found: dict[str, Any]) -> None:
    assert (found["model"], found["a"], found["b"]) == (NAME, 1, 2)
    assert 100 < found["rows"] < 300
    assert found["both"] + found["only_a"] + found["only_b"] + found["neither"] == found["rows"]
    accuracy = next(figure for figure in found["figures"] if figure["name"] == "accuracy")
    assert accuracy["rows"] == found["rows"]
    assert accuracy["a"]["value"] == pytest.approx((found["both"] + found["only_a"]) / found["rows"])
    assert accuracy["b"]["value"] == pytest.approx((found["both"] + found["only_b"]) / found["rows"])
    for figure in found["figures"]:
        assert figure["difference"]["value"] == pytest.approx(figure["b"]["value"] - figure["a"]["value"])
        for side in ("a", "b"):
            assert figure[side]["low"] - 1e-9 <= figure[side]["value"] <= figure[side]["high"] + 1e-9
    assert {rule["name"] for rule in found["rules"]} >= {"floor", "gain", "interval", "class recall"}


def test_the_answers_of_both_give_the_recall_of_each_class(found: dict[str, Any]) -> None:
    rows, right = Counter[str](), {side: Counter[str]() for side in ("a", "b")}
    for answer in found["answers"]:
        rows[answer["truth"]] += answer["rows"]
        for side, correct in right.items():
            correct[answer["truth"]] += answer["rows"] * (answer[side] == answer["truth"])
    recalls = {f["slice"].removeprefix("class "): f for f in found["figures"] if f["name"] == "recall"}
    assert recalls.keys() == rows.keys()
    for label, figure in recalls.items():
        assert figure["rows"] == rows[label]
        for side, correct in right.items():
            assert figure[side]["value"] == pytest.approx(correct[label] / rows[label])


def test_a_comparison_is_no_look_of_the_gate(found: dict[str, Any], here: Installation) -> None:
    assert found
    assert here.registry.ledger.looks(NAME) == []


def test_a_closed_use_case_shows_no_exact_counts_and_no_figures_of_few_rows(
    here: Installation, found: dict[str, Any]
) -> None:
    closed = (replace(COVERTYPE, expose_training_rows=False),)
    with running(build_app(here.settings, ModelFollower(here.settings, closed), closed, closed[0])) as client:
        answer = client.get(PATH, params={"a": 1, "b": 2}).raise_for_status().json()
    assert answer["answers"] is None
    assert min(figure["rows"] for figure in answer["figures"]) >= 10
    # Before and after a batch of one row, exact counts would tell its class, and which version is right about it.
    counts = [answer[name] for name in COUNTS]
    counts += [figure["rows"] for figure in answer["figures"]]
    assert {count % 10 for count in counts} == {0}
    # 185 rows are held out: the last 35 fill no block.
    assert answer["rows"] == found["rows"] // BLOCK * BLOCK > 0
    assert (answer["a"], answer["b"]) == (1, 2)


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        (f"{PATH}?a=1&b=99", 404, "99"),
        (f"{PATH}?a=1", 422, "b"),
        ("/models/nothing/compare?a=1&b=2", 404, NAME),
        (f"{PATH}?a=0&b=2", 422, "a"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused_with_the_reason(
    api: TestClient, path: str, status: int, message: str
) -> None:
    response = api.get(path)
    assert response.status_code == status
    assert message in response.json()["detail"]


def test_a_comparison_needs_a_key_if_there_are_keys(install: Install) -> None:
    key = "k" * 20
    with serving(install(in_production=True, predict_keys=f"ana:{key}").settings) as client:
        assert client.get(PATH, params={"a": 1, "b": 2}).status_code == 401
        assert client.get(PATH, params={"a": 1, "b": 2}, headers={"X-API-Key": key}).status_code == 404


def dosel(here: Installation, *arguments: str) -> str:
    settings = {"DOSEL_HOME": str(here.settings.home), "MLFLOW_TRACKING_URI": here.store}
    settings |= {"DOSEL_WAREHOUSE_URL": here.settings.warehouse_url}
    command = (sys.executable, "-m", "dosel", "compare", "covertype", *arguments)
    result = subprocess.run(
        command, env=os.environ | settings, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("columns", ["80", "200"])
def test_the_command_names_the_gate_once_and_classes_in_full(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    share = Share(0.87131, 0.86, 0.88)
    figure = ComparedFigure("recall", "class Cottonwood/Willow", 500, share, share, share)
    rules = (Rule("floor", True, "accuracy 0.9"), Rule("gain", False, "no gain"))
    counts = dict.fromkeys(COUNTS, 500)
    made = VersionComparison(NAME, 1, 2, confidence=0.95, figures=(figure,), answers=None, rules=rules, **counts)
    monkeypatch.setattr("dosel.pipeline.Pipeline.compare", lambda *_: made)
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", columns)
    compare.compare(COVERTYPE.name, 1, 2, False)
    table, notes = capsys.readouterr()
    # The column is the first, and its lines are whole words.
    assert all(word in table for word in ("recall", "class", "Cottonwood/Willow"))
    assert notes.splitlines()[1:] == [
        "the gate on version 2 as the challenger of 1:",
        "  floor holds: accuracy 0.9",
        "  gain fails: no gain",
    ]


def test_the_command_shows_no_exact_counts_of_a_closed_use_case(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed, parts = replace(COVERTYPE, expose_training_rows=False), dict.fromkeys(COUNTS, 17)
    share = Share(0.87131, 0.86, 0.88)
    figure = ComparedFigure("recall", "class Aspen", 17, share, share, share)
    made = VersionComparison(NAME, 1, 2, confidence=0.95, figures=(figure,), answers=None, rules=(), **parts)
    monkeypatch.setattr("dosel.cli.compare.of_model", lambda _: closed)
    monkeypatch.setattr("dosel.pipeline.Pipeline.compare", lambda *_: made)
    for as_json in (True, False):
        compare.compare(COVERTYPE.name, 1, 2, as_json)
        printed = "".join(capsys.readouterr())
        assert "10" in printed
        assert "17" not in printed
        assert "0.871" not in printed


@pytest.mark.soak
def test_the_command_shows_the_same_figures(here: Installation, found: dict[str, Any]) -> None:
    header, *lines = (line.split("\t") for line in dosel(here, "1", "2").splitlines())
    records = [dict(zip(header, line, strict=True)) for line in lines]
    expected = [(f["name"], f["slice"], str(f["rows"]), str(f["a"]["value"])) for f in found["figures"]]
    assert [(r["figure"], r["slice"], r["rows"], r["a"]) for r in records] == expected
    as_json = json.loads(dosel(here, "1", "2", "--json"))
    assert as_json["figures"] == found["figures"]
    assert as_json["answers"] == found["answers"]


@pytest.mark.parametrize("path", ["/predict", f"/predict/{COVERTYPE.name}"])
def test_a_request_can_name_a_version_that_is_not_in_production(api: TestClient, here: Installation, path: str) -> None:
    for number, run_id in enumerate(here.good, 1):
        answer = api.post(path, params={"version": number}, json=EXAMPLE).raise_for_status().json()
        assert answer["model"] == {"name": NAME, "version": number, "run_id": run_id}
    many = api.post(f"/predict/{COVERTYPE.name}/batch", params={"version": 2}, json=[EXAMPLE]).json()
    assert many["model"]["version"] == 2
    assert many["predictions"][0]["probabilities"] == answer["probabilities"]


@pytest.mark.parametrize(
    ("version", "status", "message"), [("99", 404, "99"), ("0", 422, "version"), ("two", 422, "version: expected")]
)
def test_a_version_that_does_not_exist_is_refused(api: TestClient, version: str, status: int, message: str) -> None:
    response = api.post("/predict", params={"version": version}, json=EXAMPLE)
    assert response.status_code == status
    assert message in response.json()["detail"]


def test_rows_that_nobody_observed_stay_out_of_the_prediction_log(install: Install) -> None:
    made = install(in_production=True)
    engine = connect(made.settings.warehouse_url)

    def logged() -> list[int]:
        with engine.connect() as connection:
            return list(connection.scalars(select(ANSWERS.c.rows)))

    with serving(made.settings) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        for log, rows in ((False, 3), (True, 2)):
            batch = client.post(f"/predict/{COVERTYPE.name}/batch", params={"log": log}, json=[EXAMPLE] * rows)
            batch.raise_for_status()
        wait_until(lambda: len(logged()) == 2)
        assert set(logged()) == {2}
