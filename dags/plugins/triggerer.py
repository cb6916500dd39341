"""An Airflow plugin that shows a missing triggerer as no failure: no task of dosel defers, so that nothing needs one.

The embedded platform starts no triggerer.

Every process of Airflow loads this file; only the api-server needs the imports inside the functions.
"""

from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HEALTH = "/api/v2/monitor/health"


def health() -> dict[str, Any]:
    """Airflow's health, in which a triggerer that was never started is healthy as long as no task waits for one."""
    from airflow.api.common.airflow_health import HEALTHY, get_airflow_health
    from airflow.jobs.triggerer_job_runner import TriggererJobRunner

    found = get_airflow_health()
    if found["triggerer"]["status"] is None and not TriggererJobRunner.is_needed():  # type: ignore[call-arg]
        found["triggerer"]["status"] = HEALTHY
    return found


class TriggererIfNeeded:
    """Answers the request for Airflow's health, and passes all others on."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        answer = self._app
        if scope["type"] == "http" and scope["path"] == HEALTH:
            from starlette.concurrency import run_in_threadpool
            from starlette.responses import JSONResponse

            answer = JSONResponse(await run_in_threadpool(health))
        await answer(scope, receive, send)


class DoselPlugin(AirflowPlugin):
    """What Airflow finds in this file."""

    name = "dosel"
    fastapi_root_middlewares = [  # noqa: RUF012  as Airflow declares it
        {"middleware": TriggererIfNeeded, "args": [], "kwargs": {}, "name": "triggerer if needed"}
    ]
