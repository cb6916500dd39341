"""Trains every declared family of every use case, and then trains each version again from what it keeps."""

import tempfile
from pathlib import Path

import mlflow
from mlflow import MlflowClient

from benchmarks.installation import OneByOne, say
from dosel.pipeline import Pipeline
from dosel.reproduction import reproduce
from dosel.settings import Settings
from dosel.sources.base import Source
from dosel.usecases import ALL, DataApiRows
from external.columns import as_words
from external.generator import generate

ROWS = 3_000
TRIALS = 3


def reproduce_all() -> dict[str, object]:
    """How many families there are, and how many were trained again to an equal model."""
    families, equal = 0, 0
    for use_case in ALL:
        with tempfile.TemporaryDirectory(prefix="dosel-benchmark-") as name:
            home = Path(name)
            uri, key = f"sqlite:///{home / 'mlflow.db'}", str(home / "keys" / "key.pem")
            settings = Settings(home=home, tracking_uri=uri, signing_key=key, trials=TRIALS)
            mlflow.set_tracking_uri(uri)
            MlflowClient(uri).create_experiment(use_case.experiment, str(home / "artifacts"))
            pipeline = Pipeline(use_case, settings)
            source: Source = pipeline.source()
            if isinstance(use_case.rows, DataApiRows):
                source = OneByOne([lambda: as_words(generate(ROWS, seed=1), first_class=1)])
            pipeline.ingest(source)
            pipeline.register(pipeline.train())
            for version in pipeline.registry.versions(use_case.model_name):
                found = reproduce(use_case, pipeline.registry, pipeline.batches, version.version, settings)
                families, equal = families + 1, equal + found.reproduced
                differs = "".join(f"; {difference}" for difference in found.differences)
                say(f"{use_case.name} {found.family}: {'equal' if found.reproduced else 'another one'}{differs}")
    mlflow.set_tracking_uri(None)
    return {"families": families, "reproduced": equal}
