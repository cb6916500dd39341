"""dosel's API client, with a stand-in for its HTTP transport."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pandas as pd
import pytest

import dosel
from dosel.client import ApiProblem, Client
from dosel.errors import AnswerTimeout, ServiceError

Handler = Callable[[httpx.Request], httpx.Response]
URL = "http://api.test"


def client(handler: Handler, attempts: int = 3) -> Client:
    return Client(URL, attempts=attempts, transport=httpx.MockTransport(handler))


def problem(status: int, detail: str, **more: Any) -> httpx.Response:
    headers = {"Content-Type": "application/problem+json"}
    return httpx.Response(status, json={"status": status, "detail": detail, **more}, headers=headers)


class Script:
    """A transport that sends the given responses in order, and then repeats the last one."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(("model", "query"), [(None, b""), ("a model", b"model=a+model")])
def test_predict_sends_the_row_and_returns_the_prediction(model: str | None, query: bytes) -> None:
    script = Script(httpx.Response(200, json={"prediction": 2}, headers={"X-Dosel-Request-ID": "r-1"}))
    answer = client(script).predict("covertype", {"Slope": 1}, model)
    assert answer == {"prediction": 2, "request_id": "r-1", "stale": False}
    [request] = script.requests
    assert (request.method, request.url.path) == ("POST", "/predict/covertype")
    assert request.url.query.replace(b"%20", b"+") == query
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == {"Slope": 1}


def test_an_answer_says_whether_its_version_is_confirmed() -> None:
    script = Script(httpx.Response(200, json={"prediction": 2}, headers={"X-Model-Stale": "true"}))
    assert client(script).predict("covertype", {})["stale"]
    with client(script).predict_csv("covertype", [b""], 0) as answer:
        assert answer.stale


def test_predict_sends_nan_for_the_api_to_refuse() -> None:
    script = Script(problem(422, "Slope: …"))
    with pytest.raises(ApiProblem):
        client(script).predict("covertype", {"Slope": float("nan")})
    assert b"NaN" in script.requests[0].content


@pytest.mark.parametrize(
    ("call", "method", "path", "answer", "expected"),
    [
        (Client.use_cases, "GET", "/use-cases", {"use_cases": [{"name": "a"}]}, [{"name": "a"}]),
        (Client.models, "GET", "/models", {"models": [{"name": "m"}]}, [{"name": "m"}]),
        (lambda c: c.model_info("a"), "GET", "/model-info", {"name": "m"}, {"name": "m"}),
        (Client.readiness, "GET", "/readyz", {"stale": []}, {"stale": []}),
        (Client.warm_up, "POST", "/warmup", {"a": {"version": 1}}, {"a": {"version": 1}}),
    ],
)
def test_each_method_calls_its_documented_path(
    call: Callable[[Client], Any], method: str, path: str, answer: Any, expected: Any
) -> None:
    script = Script(httpx.Response(200, json=answer))
    with client(script) as api:
        assert call(api) == expected
    assert (script.requests[0].method, script.requests[0].url.path) == (method, path)


def test_a_problem_document_becomes_an_api_problem_with_its_errors() -> None:
    errors = [{"field": "Slope", "expected": "a number", "got": "nothing", "message": "…"}]
    with pytest.raises(ApiProblem) as caught:
        client(Script(problem(422, "Slope: expected a number", errors=errors))).predict("covertype", {})
    assert (caught.value.status, caught.value.detail) == (422, "Slope: expected a number")
    assert caught.value.errors == errors
    assert "422: Slope: expected a number" in str(caught.value)


@pytest.mark.parametrize("body", ["<html>", "[]", "null", "{}"])
def test_an_error_without_a_problem_document_becomes_an_api_problem(body: str) -> None:
    with pytest.raises(ApiProblem, match="502: Bad Gateway"):
        client(Script(httpx.Response(502, text=body))).models()


def test_a_response_that_is_not_json_raises_a_service_error() -> None:
    with pytest.raises(ServiceError, match="is it the prediction API"):
        client(Script(httpx.Response(200, text="<html>")), attempts=1).models()


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ConnectTimeout("no answer")])
def test_an_unreachable_api_raises_a_service_error_with_its_address(error: Exception) -> None:
    script = Script(error)
    with pytest.raises(ServiceError, match=f"{URL}.* cannot be reached") as caught:
        client(script).models()
    assert not isinstance(caught.value, ApiProblem)
    assert len(script.requests) == 3


@pytest.mark.parametrize(
    ("call", "seconds"),
    [(lambda api: api.explain("covertype", {}), 60), (lambda api: api.predict("covertype", {}), 30)],
)
def test_an_answer_that_takes_too_long_raises_an_error_with_its_limit(
    call: Callable[[Client], Any], seconds: int
) -> None:
    """An explanation may take longer: the first one of a process reads the training rows."""
    with pytest.raises(AnswerTimeout, match=f"{URL} did not answer within {seconds} s"):
        call(client(Script(httpx.ReadTimeout("slow"))))


@pytest.mark.parametrize("first", [httpx.ConnectError("refused"), problem(503, "MLflow cannot be reached")])
@pytest.mark.parametrize("call", [Client.models, Client.warm_up])
def test_idempotent_requests_are_retried(call: Callable[[Client], Any], first: httpx.Response | Exception) -> None:
    script = Script(first, httpx.Response(200, json={"models": []}))
    call(client(script))
    assert len(script.requests) == 2


@pytest.mark.parametrize("answer", [httpx.ConnectError("refused"), problem(503, "no model yet")])
def test_predict_is_not_retried(answer: httpx.Response | Exception) -> None:
    script = Script(answer)
    with pytest.raises(ServiceError):
        client(script).predict("covertype", {})
    assert len(script.requests) == 1


def test_a_refused_request_is_not_retried() -> None:
    script = Script(problem(404, "no use case 'b'"))
    with pytest.raises(ApiProblem, match="no use case 'b'"):
        client(script).model_info("b")
    assert len(script.requests) == 1


def test_feedback_is_sent_in_bounded_requests_and_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dosel.client.FEEDBACK_ROWS", 2)
    receipt = httpx.Response(200, json={"accepted": 1, "already_known": 0})
    script = Script(problem(503, "not yet"), receipt)
    rows = [{"request_id": f"r-{i}", "truth": 2} for i in range(5)]
    assert client(script).feedback("covertype", rows) == {"accepted": 3, "already_known": 0}
    assert [json.loads(request.content) for request in script.requests] == [rows[:2], rows[:2], rows[2:4], rows[4:]]
    assert {request.url.path for request in script.requests} == {"/feedback/covertype"}


def test_a_frame_comes_back_with_its_own_columns_as_they_were() -> None:
    csv = "id,prediction,prediction,label,Adelie,Gentoo\n007,x,0,Adelie,0.9,0.1\n008,y,2,Gentoo,0.2,0.8\n"
    headers = {"X-Model": "penguins_species", "X-Model-Version": "3", "X-Dosel-Request-ID": "r-1"}
    script = Script(httpx.Response(200, text=csv, headers=headers))
    rows = pd.DataFrame({"id": ["007", "008"], "mass": [1.5, 2.0], "prediction": ["x", "y"]}, index=[10, 20])
    found = client(script).predict_frame("penguins", rows)
    assert script.requests[0].content.decode() == "id,mass,prediction\n007,1.5,x\n008,2.0,y\n"
    assert found.iloc[:, :3].equals(rows)
    answers = found.iloc[:, 3:]
    assert list(answers.columns) == ["prediction", "label", "Adelie", "Gentoo"]
    assert answers.to_numpy().tolist() == [[0, "Adelie", 0.9, 0.1], [2, "Gentoo", 0.2, 0.8]]
    assert found.attrs == {"model": "penguins_species", "version": 3, "request_id": "r-1"}


def test_open_asks_the_api_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOSEL_API_URL", URL)
    monkeypatch.setenv("DOSEL_API_KEY", "ours")
    with dosel.open() as opened, dosel.open("http://other.test", key="theirs") as other:
        assert (str(opened._http.base_url), opened._http.headers["X-API-Key"]) == (URL, "ours")
        assert (str(other._http.base_url), other._http.headers["X-API-Key"]) == ("http://other.test", "theirs")


def test_the_key_of_the_settings_is_sent_to_no_other_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOSEL_API_URL", URL)
    monkeypatch.setenv("DOSEL_API_KEY", "ours")
    with dosel.open("http://elsewhere.test") as other, dosel.open(f"{URL}/") as same:
        assert "X-API-Key" not in other._http.headers
        assert same._http.headers["X-API-Key"] == "ours"
        assert repr(other) == "Client('http://elsewhere.test')"


def test_the_packages_front_door_has_the_error_of_refused_requests() -> None:
    assert dosel.ApiProblem is ApiProblem
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = dosel.Nothing
