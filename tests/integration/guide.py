"""Checks of a use case that was copied from the guide, in a process that imports its declaration.

python -m tests.integration.guide NAME FOLDER
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import inspect
from streamlit.testing.v1 import AppTest

from app.main import create_app
from dosel.db.engine import connect
from dosel.pipeline import Pipeline
from dosel.settings import Settings
from dosel.usecases import UseCase, named
from tests.conftest import until

ROOT = Path(__file__).resolve().parents[2]


def main(name: str, folder: Path) -> None:
    os.chdir(folder)
    settings = Settings(home=folder, tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", jobs=1, poll_seconds=0.1)
    use_case = named(name)
    enters_production(use_case, settings)
    assert {f"{name}_raw", f"{name}_clean", f"{name}_quarantine"} <= tables(settings)
    fill_in(answers(use_case, settings))
    assert {f"{name}_ingest", f"{name}_train"} <= dags(folder)
    sys.stdout.write("all of it works\n")


def enters_production(use_case: UseCase, settings: Settings) -> None:
    pipeline = Pipeline(use_case, settings)
    [record] = pipeline.ingest(pipeline.source())
    assert record.rows_clean == record.rows_received > 0
    assert pipeline.training_due()
    outcome = pipeline.challenge(pipeline.register(pipeline.train()), "a test of the guide")
    assert outcome.promoted, outcome.reason
    assert not pipeline.training_due()
    assert pipeline.ingest(pipeline.source()) == []


def tables(settings: Settings) -> set[str]:
    return set(inspect(connect(settings.warehouse_url)).get_table_names())


def answers(use_case: UseCase, settings: Settings) -> dict[str, Any]:
    """The use case in `GET /use-cases`, after a check of its predictions and refusals."""
    with TestClient(create_app(settings)) as client:
        path = f"/predict/{use_case.name}"
        until(lambda: client.post(path, json=use_case.example).is_success, 60)
        assert client.post(path, json=use_case.example).json()["label"] in use_case.target.labels.values()
        first = use_case.numbers[0]
        refused = client.post(path, json=use_case.example | {first.name: first.maximum + 1})
        assert [error["expected"] for error in refused.json()["errors"]] == [first.describe_expected()]
        for family in use_case.families:
            assert client.post(path, params={"model": family.name}, json=use_case.example).is_success
        assert path in client.get("/openapi.json").json()["paths"]
        listed: list[dict[str, Any]] = client.get("/use-cases").json()["use_cases"]
        return next(shown for shown in listed if shown["name"] == use_case.name)


def page(shown: dict) -> None:  # type: ignore[type-arg]
    """Streamlit runs the source of this function as a script, without the module's imports."""
    import streamlit as st

    from ui import form, kept

    kept.recognise()
    typed = form.show(shown)
    if typed.sent:
        st.json(typed.row)


def fill_in(shown: dict[str, Any]) -> None:
    """Check that the form, drawn from this description alone, sends the example unchanged."""
    test = AppTest.from_function(page, kwargs={"shown": shown}, default_timeout=60).run()
    assert not test.exception, test.exception
    test.button[0].click().run()
    test.button[1].click().run()
    assert not test.exception
    assert json.loads(test.json[0].value) == shown["example"]


def dags(folder: Path) -> set[str]:
    os.environ |= {
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow.db'}",
    }
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(ROOT / "dags"))
    assert bag.import_errors == {}
    return set(bag.dags)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
