"""The client of MLflow's REST API: what an odd, hostile or overloaded server can answer."""

import gzip
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from dosel.registry import mlflow_http
from dosel.registry.mlflow_calls import Refused, Unreachable
from dosel.registry.mlflow_http import MlflowHttp
from dosel.registry.mlflow_server import MAX_FILES, MlflowServer
from tests import outside
from tests.outside import HEAD, Talk, dripping, silent, unread

Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dosel.registry.mlflow_http.MAX_WAIT_SECONDS", 0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")


def server(answer: Answer) -> MlflowServer:
    return MlflowServer("http://mlflow.test/prefix/", unread(answer))


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


@pytest.mark.parametrize(
    "location",
    [
        "mlflow-artifacts://elsewhere.test/1/models/m-1",
        "mlflow-artifacts:/1/models?host=elsewhere.test",
        "http://elsewhere.test/models/m-1",
        "file:///etc",
        "/etc",
        "s3://elsewhere/models/m-1",
        "s3://mlflows3/../elsewhere",
        "",
    ],
)
def test_files_elsewhere_are_neither_read_nor_written(location: str, tmp_path: Path) -> None:
    """MLflow's own client would follow the location to any host, and take its credentials along."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json={"artifact_uri": location})

    mlflow = server(answer)
    with pytest.raises(Refused, match="dosel reads those that MLflow hands out itself"):
        mlflow.download("vf", 1, tmp_path)
    with pytest.raises(Refused, match="dosel reads those that MLflow hands out itself"):
        mlflow.add_file("vf", 1, "card.md", b"")
    assert {path.rpartition("/")[2] for path in asked} == {"get-download-uri"}


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
        return httpx.Response(503, json={"error_code": "TEMPORARILY_UNAVAILABLE", "message": "the database is down"})

    with pytest.raises(Unreachable, match="HTTP status 503, TEMPORARILY_UNAVAILABLE: the database is down"):
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


def test_compressed_answers_are_refused_without_inflating(tmp_path: Path) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["accept-encoding"])
        content = gzip.compress(gzip.compress(b" " * 1_000_000))
        return httpx.Response(200, stream=httpx.ByteStream(content), headers={"Content-Encoding": "gzip, gzip"})

    with pytest.raises(Refused, match="in the encoding 'gzip, gzip'; expected none"):
        server(answer).aliased("vf", "production")
    with pytest.raises(Refused, match="in the encoding 'gzip, gzip'; expected none"):
        MlflowHttp("http://mlflow.test", unread(answer)).fetch("a", tmp_path / "a")
    assert asked == ["identity", "identity"]


def test_redirects_are_not_followed(tmp_path: Path) -> None:
    hosts = []

    def answer(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        if request.url.host == "mlflow.test":
            return httpx.Response(302, headers={"Location": "http://inside.test/secret"})
        return httpx.Response(403, text="SECRET")

    with pytest.raises(Refused, match=r"it redirects to 'http://inside\.test/secret'"):
        server(answer).version("vf", 1)
    with pytest.raises(Refused, match=r"it redirects to 'http://inside\.test/secret'"):
        MlflowHttp("http://mlflow.test", unread(answer)).fetch("a", tmp_path / "a")
    assert hosts == ["mlflow.test", "mlflow.test"]


@pytest.mark.parametrize(
    "talk",
    [dripping(HEAD, b" "), dripping(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"), silent],
    ids=["body drips", "headers drip", "silence"],
)
def test_the_limit_applies_to_the_whole_answer_of_a_call_and_of_a_file(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "0.2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    began = time.monotonic()
    with outside.server(talk) as (url, _):
        with pytest.raises(Unreachable, match="did not finish its answer in time"):
            MlflowServer(url).version("vf", 1)
        with pytest.raises(Unreachable, match="did not finish its answer in time"):
            MlflowHttp(url).fetch("a", tmp_path / "a")
    assert time.monotonic() - began < 5


def test_a_large_file_may_take_longer_than_the_limit_of_a_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(mlflow_http, "LEAST_BYTES_A_SECOND", 100)

    def slowly(peer: socket.socket, done: Event) -> None:
        peer.sendall(HEAD)
        for _ in range(10):
            done.wait(0.12)
            peer.sendall(b"x" * 100)

    with outside.server(slowly) as (url, _):
        MlflowHttp(url).fetch("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"x" * 1000


def test_an_error_shows_only_the_beginning_of_an_answer() -> None:
    refusal = httpx.Response(400, json={"error_code": "BAD", "message": "m" * 1_000_000})
    with pytest.raises(Refused, match="BAD: mmm") as raised:
        server(lambda _: refusal).version("vf", 1)
    assert len(str(raised.value)) == mlflow_http.MOST_TEXT


def test_reading_an_answer_stops_at_the_size_limit() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 50_000_000:
            sent += 100_000
            yield b" " * 100_000

    with pytest.raises(Refused, match="more than 8,000,000 bytes; dosel writes far less, so look for large tags"):
        server(lambda _: httpx.Response(200, content=endless())).version("vf", 1)
    assert sent == 8_100_000


def test_answer_of_very_many_small_objects_is_refused_unread() -> None:
    runs = {"runs": [{"info": {"run_id": ""}}] * mlflow_http.MOST_OBJECTS}
    with pytest.raises(Refused, match="more than 20,000 JSON objects"):
        server(lambda _: httpx.Response(200, json=runs)).version("vf", 1)


def test_page_with_more_entries_than_asked_for_is_refused() -> None:
    versions = {"model_versions": [{"name": "vf", "version": "1"}] * (mlflow_http.PER_PAGE + 1)}
    with pytest.raises(Refused, match="more than the 25 entries of a page that were asked for"):
        server(lambda _: httpx.Response(200, json=versions)).search_versions("")


def test_newest_runs_are_read_until_there_are_enough() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"experiment": {"experiment_id": "1"}})
        page = int(json.loads(request.content).get("page_token", "0"))
        runs = [{"info": {"run_id": f"{page * mlflow_http.PER_PAGE + i}"}} for i in range(mlflow_http.PER_PAGE)]
        return httpx.Response(200, json={"runs": runs, "next_page_token": str(page + 1)})

    found = server(answer).finished_runs("covertype", datetime.now(UTC), 60)
    assert [run.id for run in found] == [str(i) for i in range(60)]


def test_runs_and_versions_are_read_in_pages() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        given = json.loads(request.content) if request.content else dict(request.url.params)
        asked.append((int(given["max_results"]), given.get("page_token")))
        return httpx.Response(200, json={} if "page_token" in given else {"next_page_token": "more"})

    server(answer).runs(["a" * 32])
    server(answer).search_versions("")
    assert asked == [(mlflow_http.PER_PAGE, None), (mlflow_http.PER_PAGE, "more")] * 3
