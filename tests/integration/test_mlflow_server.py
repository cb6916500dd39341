"""The pipeline through an MLflow server, as the platform runs it: rows in MySQL, artifacts in MinIO."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import mlflow
import pytest

from dosel.embedded.guard import guarded
from dosel.embedded.local_servers import Minio
from dosel.embedded.preflight import free_ports
from dosel.embedded.processes import Processes
from dosel.embedded.services import HOST, Service, make_bucket
from dosel.pipeline import Pipeline
from dosel.rows import frames
from dosel.settings import ARTIFACT_BUCKET, Settings
from dosel.usecases.covertype import COVERTYPE
from tests.conftest import until
from tests.integration.stores import s3
from tests.integration.worlds import FAMILIES, Deliveries, batch

START_SECONDS = 300


@pytest.fixture
def server(schema: str, minio: Minio, bare_environment: None, tmp_path: Path) -> Iterator[str]:
    """The address of an MLflow server, which alone has the keys of the bucket."""
    [port] = free_ports(1)
    command = (
        *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
        *(
            "--backend-store-uri",
            schema.replace("mysql:", "mysql+pymysql:"),
            "--artifacts-destination",
            f"s3://{ARTIFACT_BUCKET}",
        ),
    )
    service = Service("mlflow", "MLflow", command, port)
    processes = Processes(tmp_path)

    def healthy() -> bool:
        assert processes.leader(service.name), processes.log(service.name).read_text()
        try:
            return httpx.get(f"{service.url}/health", timeout=5).is_success
        except httpx.HTTPError:
            return False

    with pytest.MonkeyPatch.context() as patched, guarded(tmp_path):
        for name, value in minio.settings.items():
            patched.setenv(name, value)
        make_bucket(Settings.load())
        processes.start(service, os.environ | {"MLFLOW_S3_ENDPOINT_URL": minio.url})
        # From here on, this process is a client without keys.
        patched.undo()
        until(healthy, START_SECONDS)
        mlflow.set_tracking_uri(service.url)
        yield service.url
        mlflow.set_tracking_uri(None)
        processes.stop()


@pytest.mark.soak
def test_a_model_reaches_production_through_an_mlflow_server(
    server: str,
    schema: str,
    minio: Minio,
    received: Callable[..., list[list[str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "AWS_SECRET_ACCESS_KEY" not in os.environ
    # Data store and MLflow share a schema here to show that their tables do not collide.
    settings = Settings(home=tmp_path, tracking_uri=server, warehouse_url=schema, seed=1, jobs=1)
    pipeline = Pipeline(FAMILIES["fair"], settings)
    pipeline.ingest(Deliveries(batch(received(300))))

    number = pipeline.register(pipeline.train())
    outcome = pipeline.challenge(number, "a test")

    assert outcome.promoted
    version = pipeline.registry.production(COVERTYPE.model_name)
    assert version is not None
    family = COVERTYPE.families[0].name
    assert (version.version, set(version.aliases), version.stage) == (1, {"production", family}, "Production")
    listed = s3(minio).list_objects_v2(Bucket=ARTIFACT_BUCKET)["Contents"]
    names = {Path(entry["Key"]).name for entry in listed}
    assert {"MLmodel", "model.skops", "input_example.json", "confusion_matrix.png"} <= names
    features = frames.canonical(COVERTYPE, pipeline.batches.clean())
    expected = pipeline.registry.load(version).predict_proba(features)
    plain = mlflow.sklearn.load_model(f"models:/{COVERTYPE.model_name}/Production")
    assert (plain.predict_proba(features) == expected).all()
