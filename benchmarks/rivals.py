"""Other ways to serve the same registered model: MLflow's and BentoML's, each as its documentation shows."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import psutil
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from benchmarks.installation import HOST, Installation, free_port, new_environment, process
from benchmarks.wrk import Target
from dosel.usecases.covertype import COVERTYPE

Running = tuple[Target, psutil.Process, float]

_BENTO = """
import bentoml
import pandas as pd
from skops.io import load


@bentoml.service(workers=1)
class Cover:
    def __init__(self) -> None:
        self.model = load({model!r}, trusted=["sklearn.tree._tree.Tree"])

    @bentoml.api
    def predict(self, row: dict) -> dict:
        probabilities = self.model.predict_proba(pd.DataFrame([row]))[0]
        return dict(zip(map(str, self.model.classes_), map(float, probabilities)))
"""


@contextmanager
def mlflow_serve(here: Installation) -> Iterator[Running]:
    """`mlflow models serve`, one worker."""
    port, folder = free_port(), here.settings.home
    model = f"models:/{COVERTYPE.model_name}/{here.versions[0]}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    # MLflow starts uvicorn by name.
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    healthy, log = f"http://{HOST}:{port}/ping", folder / "serve.log"
    with process(command, here.environment | path, healthy, log) as (running, seconds):
        body = json.dumps({"dataframe_records": [COVERTYPE.example]}).encode()
        target = Target.posting(folder, "mlflow models serve", f"http://{HOST}:{port}/invocations", body)
        yield target, running, seconds


@contextmanager
def bentoml(here: Installation) -> Iterator[Running]:
    """BentoML in a new environment, with the same scikit-learn.

    Raises:
        CalledProcessError, TimeoutExpired: it cannot be installed.
    """
    folder = here.settings.home / "bentoml"
    same = [f"{package}=={version(package)}" for package in ("scikit-learn", "skops", "pandas", "numpy")]
    python = new_environment(folder / "venv", "bentoml", *same)
    client = MlflowClient(here.settings.tracking_uri)
    uri = client.get_model_version_download_uri(COVERTYPE.model_name, str(here.versions[0]))
    model = Path(download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=here.settings.tracking_uri))
    (folder / "service.py").write_text(_BENTO.format(model=str(model / "model.skops")))
    port = free_port()
    command = [str(python), "-m", "bentoml", "serve", "service:Cover", "--working-dir", str(folder)]
    command += ["--host", HOST, "--port", str(port)]
    environment = os.environ | {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(folder / "home")}
    with process(command, environment, f"http://{HOST}:{port}/readyz", folder / "log") as (running, seconds):
        body = json.dumps({"row": COVERTYPE.example}).encode()
        yield Target.posting(folder, "BentoML", f"http://{HOST}:{port}/predict", body), running, seconds
