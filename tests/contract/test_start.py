"""A fresh API process answers without the libraries of a training; what needs them imports them later."""

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from app.serving.version_loader import registry_folder
from dosel.usecases import ALL
from dosel.usecases.covertype import COVERTYPE
from tests.contract.conftest import Installation
from tests.contract.test_api import serving, wait_until

Install = Callable[..., Installation]

NOWHERE = "http://127.0.0.1:1"

ANSWERING = """
import json, sys, time
from fastapi.testclient import TestClient
from app.main import create_app
from dosel.usecases import ALL, named

HEAVY = ("mlflow", "sklearn", "pandas", "scipy", "skops", "lightgbm", "onnx")

def imported():
    return [name for name in HEAVY if name in sys.modules]

with TestClient(create_app()) as client:
    answers, deadline = {}, time.monotonic() + 60
    for use_case in ALL:
        while (answer := client.post(f"/predict/{use_case.name}", json=use_case.example)).status_code != 200:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.05)
        answers[use_case.name] = answer.json()
    client.post(f"/predict/{use_case.name}/batch", json=[use_case.example] * 3).raise_for_status()
    odd = {name: str(value) for name, value in use_case.example.items()}
    client.post(f"/predict/{use_case.name}", json=odd).raise_for_status()
    for path in ("/healthz", "/openapi.json", "/metrics", "/use-cases", f"/models/{use_case.model_name}/history"):
        client.get(path).raise_for_status()
    at_first = imported()
    client.post("/explain/covertype", json=named("covertype").example).raise_for_status()
    found = json.dumps({"answers": answers, "at_first": at_first, "later": imported()})
# After the log of the shutdown.
print(found)
"""


@pytest.fixture(scope="module")
def cached(install: Install) -> tuple[Installation, dict[str, object]]:
    """An installation whose versions in Production are in the cache of an API that asks a server, and its answers."""
    here = install(in_production=True)
    here.promote_others()
    with serving(here.settings) as client:
        wait_until(lambda: all(client.post(f"/predict/{u.name}", json=u.example).is_success for u in ALL))
        answers = {u.name: client.post(f"/predict/{u.name}", json=u.example).json() for u in ALL}
    elsewhere = here.settings.model_copy(update={"tracking_uri": NOWHERE})
    registry_folder(here.settings).rename(registry_folder(elsewhere))
    return here, answers


@pytest.mark.soak
def test_answers_import_no_library_of_a_training(cached: tuple[Installation, dict[str, object]]) -> None:
    here, answers = cached
    environment = {
        **os.environ,
        "DOSEL_HOME": str(here.settings.home),
        "DOSEL_WAREHOUSE_URL": here.settings.warehouse_url,
        "MLFLOW_TRACKING_URI": NOWHERE,
    }
    done = subprocess.run(
        [sys.executable, "-c", ANSWERING], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["answers"] == answers
    assert found["at_first"] == []
    assert {"sklearn", "skops"} <= set(found["later"])
    assert "mlflow" not in found["later"]


@pytest.mark.soak
def test_a_version_of_an_older_dosel_answers_the_same(
    install: Install, cached: tuple[Installation, dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files have no preprocessing as values, so that the estimator is read."""
    monkeypatch.setattr("dosel.model.bundle.ENCODER_FILE", "written later.json")
    here = install(in_production=True)
    with serving(here.settings) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        answer = client.post("/predict", json=COVERTYPE.example).json()
    assert answer == cached[1][COVERTYPE.name]
