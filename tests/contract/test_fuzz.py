"""Five hundred requests nobody thought of, made from the OpenAPI document; `make fuzz` sends ten thousand."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.types import ASGIApp, Receive, Scope, Send

from app.main import create_app
from tests.contract.conftest import Installation
from tests.contract.test_api import running, wait_until

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
CASES_A_CALL = 25
"""Of some twenty calls."""


class Started:
    """An app that runs already: each request would start it anew."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._app(scope, receive, send)
            return
        for done in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{done}.complete"})


@pytest.fixture(scope="module")
def document(install: Callable[..., Installation]) -> Iterator[Any]:
    """The API's own description of itself, with the API behind it."""
    here = install()
    here.promote(here.good[0])
    app = create_app(here.settings)
    with running(app) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        project = ProjectConfig()
        # Every value at its bounds, by itself: thousands of cases, which are left to `make fuzz`.
        project.phases.update(phases=["fuzzing"])
        config = SchemathesisConfig(projects=ProjectsConfig(default=project))
        yield schemathesis.openapi.from_asgi("/openapi.json", Started(app), config=config)


calls = schemathesis.pytest.from_fixture("document")


@calls.parametrize()
@settings(
    max_examples=CASES_A_CALL,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_is_documented(case: Any) -> None:
    case.call_and_validate(checks=CHECKS)
