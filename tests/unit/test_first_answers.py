"""The wait of a start for each use case's first answer."""

from typing import Any

import pytest

from dosel.embedded import first_answers
from dosel.embedded.first_answers import FirstAnswers
from dosel.errors import ServiceError
from dosel.settings import Settings
from dosel.usecases import UseCase
from dosel.usecases.covertype import COVERTYPE
from dosel.usecases.penguins import PENGUINS


class Pipeline:
    """A stand-in for `Progress`."""

    def __init__(self, use_case: UseCase, _: Settings) -> None:
        self.name = use_case.name
        self.production: int | None = None
        self.failed = ""
        self.stage = "waiting"

    def start_ingest(self) -> None: ...

    def poll(self, mlflow: bool, airflow: bool) -> list[str]:
        return []


class Api:
    """A stand-in for the client of an API with a model for penguins only."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def predict(self, use_case: str, row: Any) -> dict[str, Any]:
        if use_case != PENGUINS.name:
            raise ServiceError("no model is loaded")
        return {"label": "Adelie"}


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> FirstAnswers:
    monkeypatch.setattr(first_answers, "Progress", Pipeline)
    monkeypatch.setattr(first_answers, "Client", Api)
    return FirstAnswers([COVERTYPE, PENGUINS], Settings(), lambda: "3 s")


def promote_and_poll(start: FirstAnswers, *names: str) -> None:
    for name in names or start._following:
        start._following[name].production = 1
    assert list(start.poll()) == []


def test_a_failed_pipeline_does_not_stop_the_start_of_the_others(start: FirstAnswers) -> None:
    start._following[COVERTYPE.name].failed = "covertype_ingest: task pull failed"
    assert not start.is_over
    promote_and_poll(start, PENGUINS.name)
    assert start.is_over
    assert start.answered == [(PENGUINS.name, "3 s")]
    assert start.failed == {COVERTYPE.name: "covertype_ingest: task pull failed"}


def test_after_a_failed_pipeline_a_version_in_production_may_still_answer(start: FirstAnswers) -> None:
    start._following[PENGUINS.name].failed = "penguins_ingest: task pull failed"
    start._following[PENGUINS.name].production = 1
    assert not start.is_over
    promote_and_poll(start, PENGUINS.name)
    assert [name for name, _ in start.answered] == [PENGUINS.name]
    assert PENGUINS.name not in start.failed


def test_a_use_case_that_never_answers_fails_with_what_the_api_says(start: FirstAnswers) -> None:
    promote_and_poll(start)
    assert not start.is_over
    start.give_up("no progress for 600 s", "the log's last line")
    assert start.is_over
    reason = "covertype: no progress for 600 s; the API says: no model is loaded\nthe log's last line"
    assert start.failed == {COVERTYPE.name: reason}
