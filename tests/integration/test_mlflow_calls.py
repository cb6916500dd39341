"""The calls to MLflow over HTTP and by MLflow's own client: both read and write the same."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput

from dosel.registry.mlflow_calls import EXISTS, MISSING, MlflowCalls, Refused
from dosel.registry.mlflow_library import MlflowLibrary
from dosel.registry.mlflow_server import MlflowServer

NAME = "vf"
UNKNOWN = "0" * 32


@dataclass
class Installation:
    """The same MLflow over HTTP and by its own client, with a run that logged a model and its first version."""

    server: MlflowServer
    library: MlflowLibrary
    run_id: str


class InProcess(httpx.AsyncBaseTransport):
    """Carries requests to a WSGI application."""

    def __init__(self, transport: httpx.WSGITransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        given = self._transport.handle_request(request)
        return httpx.Response(given.status_code, headers=given.headers, stream=httpx.ByteStream(given.read()))


@pytest.fixture
def installation(tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """MLflow's own server code in this process, which hands out artifacts from a folder."""
    from mlflow import server as mlflow_server
    from mlflow.server import handlers

    monkeypatch.setenv(mlflow_server.BACKEND_STORE_URI_ENV_VAR, tracking_uri)
    # For the default experiment, which the server adds to an empty store.
    monkeypatch.setenv(mlflow_server.ARTIFACT_ROOT_ENV_VAR, str(tmp_path / "artifacts"))
    monkeypatch.setenv(mlflow_server.SERVE_ARTIFACTS_ENV_VAR, "true")
    monkeypatch.setenv(mlflow_server.ARTIFACTS_DESTINATION_ENV_VAR, str(tmp_path / "behind the server"))
    for name in ("_tracking_store", "_model_registry_store", "_artifact_repo"):
        monkeypatch.setattr(handlers, name, None)
    # The server's code would set them for its whole process, which is this one.
    monkeypatch.setattr(handlers.utils, "set_tracking_uri", lambda _: None)
    monkeypatch.setattr(handlers.registry_utils, "set_registry_uri", lambda _: None)
    client = MlflowClient(tracking_uri)
    experiment = client.create_experiment("proxied", "mlflow-artifacts:/proxied")
    run_id = client.create_run(experiment).info.run_id
    client.log_param(run_id, "depth", 3)
    client.log_metric(run_id, "score", 0.75)
    client.set_tag(run_id, "dosel.family", "forest")
    model = client.create_logged_model(experiment, "model", run_id)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    server = MlflowServer("http://localhost", InProcess(httpx.WSGITransport(mlflow_server.app)))
    server.create_model(NAME, "trees")
    assert server.create_version(NAME, f"models:/{model.model_id}", run_id, model.model_id) == 1
    return Installation(server, MlflowLibrary(tracking_uri), run_id)


def test_runs_read_over_http_equal_those_of_mlflows_client(installation: Installation) -> None:
    server, library, run_id = installation.server, installation.library, installation.run_id
    run = server.run(run_id)
    assert run == library.run(run_id)
    assert (run.params, run.metrics, len(run.models)) == ({"depth": "3"}, {"score": 0.75}, 1)
    assert server.runs([run_id, UNKNOWN]) == library.runs([run_id, UNKNOWN])


def test_finished_runs_read_over_http_equal_those_of_mlflows_client(installation: Installation) -> None:
    client, long_ago = installation.library._client, datetime(2020, 1, 1, tzinfo=UTC)
    client.set_terminated(installation.run_id)
    for calls in (installation.server, installation.library):
        [run] = calls.finished_runs("proxied", long_ago, 10)
        assert (run.id, run.tags["dosel.family"]) == (installation.run_id, "forest")
        assert calls.finished_runs("proxied", datetime.now(UTC), 10) == []
        with pytest.raises(Refused) as refused:
            calls.finished_runs("unknown", long_ago, 10)
        assert refused.value.code == MISSING


def test_versions_read_over_http_equal_those_of_mlflows_client(installation: Installation) -> None:
    server, library = installation.server, installation.library
    server.set_alias(NAME, "production", 1)
    server.set_stage(NAME, 1, "Production")
    version = server.version(NAME, 1)
    assert (version.current_stage, list(version.aliases), version.run_id) == (
        "Production",
        ["production"],
        installation.run_id,
    )
    assert library.version(NAME, 1).source == version.source
    for filter in ("", f"name = '{NAME}'", f"run_id = '{UNKNOWN}'"):
        found, expected = server.search_versions(filter), library.search_versions(filter)
        assert [(v.version, v.source, v.creation_timestamp) for v in found] == [
            (v.version, v.source, v.creation_timestamp) for v in expected
        ]
    assert server.aliases(NAME) == library.aliases(NAME) == {"production": 1}
    assert server.aliased(NAME, "production") == library.aliased(NAME, "production") == 1
    server.set_alias(NAME, "production", None)
    for calls in (server, library):
        assert calls.aliased(NAME, "production") is None
        assert calls.aliased("no such model", "production") is None


def test_written_tags_metrics_and_texts_are_read_again(installation: Installation) -> None:
    server, run_id = installation.server, installation.run_id
    server.tag_run(run_id, "dosel.gate", "passed")
    server.log_metric(run_id, "gate_score", 0.5)
    server.log_metric(run_id, "unknown", math.nan)
    server.describe_version(NAME, 1, "the best")
    server.tag_version(NAME, 1, "dosel.family", "forest")
    for run in (server.run(run_id), installation.library.run(run_id)):
        assert run.tags["dosel.gate"] == "passed"
        assert run.metrics["gate_score"] == 0.5
        assert math.isnan(run.metrics["unknown"])


def test_files_added_through_the_server_are_downloaded(installation: Installation, tmp_path: Path) -> None:
    server = installation.server
    content = {"model.sig": b"\x00signed", "a name with blanks.txt": "ñ".encode()}
    for name, part in content.items():
        server.add_file(NAME, 1, name, part)
    server.add_file(NAME, 1, "model.sig", content["model.sig"])
    folder = server.download(NAME, 1, tmp_path / "copy")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == content
    server.write_to_run(installation.run_id, "gate.json", "{}")
    [report] = (tmp_path / "behind the server").rglob("gate.json")
    assert report.read_text() == "{}"


@pytest.mark.parametrize("way", ["server", "library"])
def test_a_registered_model_is_described(way: str, installation: Installation, tracking_uri: str) -> None:
    calls: MlflowCalls = installation.server if way == "server" else installation.library
    calls.describe_model(NAME, "ñandú")
    assert MlflowClient(tracking_uri).get_registered_model(NAME).description == "ñandú"


@pytest.mark.parametrize("way", ["server", "library"])
def test_what_is_missing_or_exists_already_has_mlflows_error_code(way: str, installation: Installation) -> None:
    calls: MlflowCalls = installation.server if way == "server" else installation.library
    for call in (
        lambda: calls.run(UNKNOWN),
        lambda: calls.version(NAME, 9),
        lambda: calls.set_stage(NAME, 9, "Production"),
        lambda: calls.aliases("no such model"),
    ):
        with pytest.raises(Refused) as refused:
            call()
        assert refused.value.code == MISSING
    with pytest.raises(Refused) as refused:
        calls.create_model(NAME, "again")
    assert refused.value.code == EXISTS
