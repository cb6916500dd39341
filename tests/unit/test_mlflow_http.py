"""The client of MLflow's REST API: what an odd, hostile or overloaded server can answer."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from dosel.registry.mlflow_calls import Refused, Unreachable
from dosel.registry.mlflow_server import MAX_FILES, MlflowServer

Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dosel.registry.mlflow_http.MAX_WAIT_SECONDS", 0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")


def server(answer: Answer) -> MlflowServer:
    return MlflowServer("http://mlflow.test/prefix/", httpx.MockTransport(answer))


def with_files(listed: dict[str, list[dict[str, Any]]]) -> Answer:
    """A server whose version has these files, by folder below its root."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("get-download-uri"):
            return httpx.Response(200, json={"artifact_uri": "mlflow-artifacts:/1/models/m-1/artifacts"})
        if (folder := request.url.params.get("path")) is not None:
            below = folder.removeprefix("1/models/m-1/artifacts").lstrip("/")
            return httpx.Response(200, json={"files": listed[below]})
        return httpx.Response(200, stream=httpx.ByteStream(request.url.path.encode()))

    return answer


def test_files_are_copied_with_their_folders(tmp_path: Path) -> None:
    listed: dict[str, list[dict[str, Any]]] = {
        "": [{"path": "MLmodel", "is_dir": False, "file_size": "7"}, {"path": "serving", "is_dir": True}],
        "serving": [{"path": "form.json"}],
    }
    seen: list[Mapping[str, int | None]] = []
    folder = server(with_files(listed)).download("vf", 1, tmp_path, seen.append)
    assert seen == [{"MLmodel": 7, "serving/form.json": None}]
    root = "/prefix/api/2.0/mlflow-artifacts/artifacts/1/models/m-1/artifacts"
    assert (folder / "MLmodel").read_text() == f"{root}/MLmodel"
    assert (folder / "serving" / "form.json").read_text() == f"{root}/serving/form.json"


@pytest.mark.parametrize("name", ["../outside", "..", "", "/etc/passwd", "a/b", "a\\b", "a\0b"])
def test_a_file_cannot_leave_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="have a file with the name"):
        server(with_files({"": [{"path": name}]})).download("vf", 1, tmp_path / "in")
    assert not list(tmp_path.rglob("*"))


def test_folders_without_end_are_refused(tmp_path: Path) -> None:
    endless = with_files({})

    def answer(request: httpx.Request) -> httpx.Response:
        if "path" in request.url.params:
            return httpx.Response(200, json={"files": [{"path": "more", "is_dir": True}]})
        return endless(request)

    with pytest.raises(Refused, match=f"more than {MAX_FILES:,} files"):
        server(answer).download("vf", 1, tmp_path)


@pytest.mark.parametrize("content", [b"<html>a proxy's page</html>", b"[]", b'{"run": {"info": {"run_id": 7}}}', b"{}"])
def test_answers_of_another_form_are_refused(content: bytes) -> None:
    with pytest.raises(Refused, match="is it MLflow"):
        server(lambda _: httpx.Response(200, content=content)).run("a" * 32)


def test_integers_as_text_and_unknown_fields_are_read() -> None:
    version = {"name": "vf", "version": "7", "creation_timestamp": "1700000000000", "later": {"than": "this"}}
    found = server(lambda _: httpx.Response(200, json={"model_version": version})).version("vf", 7)
    assert (found.version, found.creation_timestamp, found.run_id) == (7, 1_700_000_000_000, "")


def test_calls_are_repeated_until_the_server_answers() -> None:
    answers = iter([httpx.Response(503), httpx.Response(429), httpx.Response(200, json={"model_version": {}})])
    broken = iter([True, False])

    def failing(_: httpx.Request) -> httpx.Response:
        if next(broken):
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json={})

    with pytest.raises(Refused, match="cannot be read"):
        server(lambda _: next(answers)).version("vf", 1)
    server(failing).set_alias("vf", "production", 1)
    assert [*answers, *broken] == []


def test_a_server_that_keeps_failing_is_unreachable() -> None:
    calls = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(503, json={"error_code": "TEMPORARILY_UNAVAILABLE", "message": "the database is away"})

    with pytest.raises(Unreachable, match="answered 503, TEMPORARILY_UNAVAILABLE: the database is away"):
        server(answer).run("a" * 32)
    assert len(calls) == 3


def test_a_version_is_created_at_most_once() -> None:
    calls = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(json.loads(request.content))
        return httpx.Response(503)

    with pytest.raises(Unreachable):
        server(answer).create_version("vf", "models:/m-1", "a" * 32, "m-1")
    assert calls == [{"name": "vf", "source": "models:/m-1", "run_id": "a" * 32, "model_id": "m-1"}]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"USERNAME": "ana", "PASSWORD": "secret"}, "Basic YW5hOnNlY3JldA=="),
        ({"TOKEN": "t0ken"}, "Bearer t0ken"),
        ({}, None),
    ],
)
def test_credentials_of_the_environment_are_sent(
    variables: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    sent = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers.get("authorization"))
        return httpx.Response(200, json={})

    server(answer).set_alias("vf", "production", 1)
    assert sent == [expected]
