"""Random requests generated from the OpenAPI document; `make fuzz` sends ten thousand."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from starlette.types import ASGIApp, Receive, Scope, Send

import tests.soak.fuzz_hooks  # noqa: F401  CSVs
from app.main import create_app
from app.routes import feedback
from tests.contract.conftest import Installation
from tests.contract.test_api import running, wait_until

KEY = "k" * 20

CASES = 250


class Started:
    """An app that is already running; otherwise each request would start it again."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._app(scope, receive, send)
            return
        for done in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{done}.complete"})


@pytest.fixture
def document(install: Callable[..., Installation], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The OpenAPI document of a running API."""
    here = install(in_production=True, promote_keys=f"fuzz:{KEY}")
    here.promote_others()
    # Almost all of the feedback names no logged answer, and each lookup would take two seconds.
    monkeypatch.setattr(feedback, "PAUSE_SECONDS", 0)
    app = create_app(here.settings)
    with running(app) as client:
        wait_until(lambda: client.get("/readyz").is_success)
        yield schemathesis.openapi.from_asgi("/openapi.json", Started(app))


def test_every_response_conforms_to_the_openapi_document(document: Any) -> None:
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
            case.call_and_validate(headers={"X-API-Key": KEY})

        documented()
