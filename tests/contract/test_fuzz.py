"""Random requests, made from the OpenAPI document; `make fuzz` sends ten thousand."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.types import ASGIApp, Receive, Scope, Send

from app.main import create_app
from tests.contract.conftest import Installation
from tests.contract.test_api import running, wait_until

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
"""A fault of the service is a 500, which no call documents; 503 some do, as what has no model yet answers."""

CASES = 250


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
    here = install(in_production=True)
    app = create_app(here.settings)
    with running(app) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        yield schemathesis.openapi.from_asgi("/openapi.json", Started(app))


def test_every_answer_is_documented_in_openapi(document: Any) -> None:
    operations = [found.ok() for found in document.get_all_operations()]
    for operation in operations:
        made = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        if operation.body or operation.query or operation.path_parameters:
            made |= operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

        @settings(
            max_examples=max(1, CASES // len(operations)),
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(made)
        def documented(case: Any) -> None:
            case.call_and_validate(checks=CHECKS)

        documented()
