"""Delivery of messages: at least once, also after failures and kills, by one process at a time."""

import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, update
from typer.testing import CliRunner

from dosel.cli import cli
from dosel.db.engine import transaction
from dosel.db.locks import hold
from dosel.db.tables import DELIVERIES, EVENTS
from dosel.errors import DeliveryError
from dosel.monitor import apprise_message
from dosel.monitor.delivery import Delivered, deliver, held_back, try_to_deliver
from dosel.monitor.targets import signature
from dosel.settings import Settings
from dosel.warehouse import events
from dosel.warehouse.events import Event, EventStore, Kind, StoredEvent
from tests.integration.webhook import Received, webhook

pytestmark = pytest.mark.storage

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def receiver() -> Iterator[Received]:
    with webhook() as received:
        yield received


def write(engine: Engine, *incidents: str, kind: Kind = "promoted") -> None:
    EventStore(engine)
    with transaction(engine) as connection:
        for incident in incidents:
            events.add(connection, Event(incident, "covertype", kind, "it happened", "as seen", "dosel events"))


def settings_of(engine: Engine, **values: object) -> Settings:
    url = engine.url.render_as_string(hide_password=False)
    return Settings.model_validate({"warehouse_url": url} | values)


def retry_now(engine: Engine) -> None:
    """End all pauses between attempts."""
    with transaction(engine) as connection:
        connection.execute(update(DELIVERIES).values(next_at=datetime(2026, 1, 1)))


def make_older(engine: Engine, incident: str, by: timedelta) -> None:
    [event] = [event for event in EventStore(engine).newest(100) if event.incident == incident]
    with transaction(engine) as connection:
        at = event.at.replace(tzinfo=None) - by
        connection.execute(update(EVENTS).where(EVENTS.c.id == event.id).values(at=at))


class RecordingTarget:
    """A target that accepts every message."""

    name = "people"
    takes_digests = True

    def __init__(self) -> None:
        self.messages: list[list[str]] = []

    def send(self, events: Sequence[StoredEvent]) -> None:
        self.messages.append([event.incident for event in events])


def test_an_event_is_sent_once_signed_and_marked(engine: Engine, receiver: Received) -> None:
    settings = settings_of(engine, notify_webhook=receiver.url, notify_secret="a secret")
    write(engine, "one", "two")
    assert deliver(engine, settings) == Delivered(2, 0)
    assert deliver(engine, settings) == Delivered(0, 0)
    assert receiver.incidents == ["one", "two"]
    headers, content = receiver.requests[0]
    found = {name.lower(): value for name, value in headers.items()}
    moment = datetime.fromtimestamp(int(found["webhook-timestamp"])).astimezone()
    wanted = signature("a secret", found["webhook-id"], moment, content)
    assert {name: found[name] for name in wanted} == wanted
    [attempt] = EventStore(engine).newest(1)[0].deliveries
    assert (attempt.attempts, attempt.last_error) == (1, None)
    assert attempt.delivered_at is not None


def test_a_refused_message_is_retried_after_a_pause(engine: Engine, receiver: Received) -> None:
    settings = settings_of(engine, notify_webhook=receiver.url)
    write(engine, "one")
    receiver.status = 503
    assert deliver(engine, settings) == Delivered(0, 1)
    receiver.status = 204
    assert deliver(engine, settings) == Delivered(0, 0)
    retry_now(engine)
    assert deliver(engine, settings) == Delivered(1, 0)
    [attempt] = EventStore(engine).newest(1)[0].deliveries
    assert (attempt.attempts, attempt.last_error) == (2, None)
    assert receiver.incidents == ["one"]


def test_a_message_that_a_target_always_refuses_does_not_block_the_others(engine: Engine) -> None:
    class Picky(RecordingTarget):
        def send(self, events: Sequence[StoredEvent]) -> None:
            if events[0].incident == "bad":
                raise DeliveryError("refused")
            super().send(events)

    target = Picky()
    write(engine, "bad", "good")
    assert deliver(engine, settings_of(engine), [target]) == Delivered(0, 1)
    assert deliver(engine, settings_of(engine), [target]) == Delivered(1, 0)
    assert target.messages == [["good"]]


def test_each_target_has_its_own_state(engine: Engine, receiver: Received) -> None:
    people = RecordingTarget()
    write(engine, "one")
    settings = settings_of(engine, notify_webhook=receiver.url)
    deliver(engine, settings)
    deliver(engine, settings, [people])
    assert (receiver.incidents, people.messages) == (["one"], [["one"]])


def test_apprise_delivers_the_text(engine: Engine, receiver: Received) -> None:
    write(engine, "one")
    settings = settings_of(engine, notify=receiver.url.replace("http:", "json:"))
    assert deliver(engine, settings) == Delivered(1, 0)
    [document] = receiver.documents
    assert document["title"] == "dosel: it happened"
    assert document["message"].splitlines()[-1] == "Type: dosel events"
    receiver.status = 500
    write(engine, "two")
    assert deliver(engine, settings) == Delivered(0, 1)
    [attempt] = EventStore(engine).newest(1)[0].deliveries
    # In the words of Apprise.
    assert "error=500" in (attempt.last_error or "")


@pytest.mark.parametrize(
    ("piece", "pause", "seconds", "reason"),
    [
        (b".", 0.05, 3.0, "the service did not finish its answer in 3 s"),
        # In the words of Apprise, at the limit of memory.
        (b"." * 65_536, 0.0, 60.0, "raised an exception."),
    ],
)
def test_a_service_whose_answer_does_not_end_is_given_up(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, piece: bytes, pause: float, seconds: float, reason: str
) -> None:
    """Apprise itself would read and wait for ever."""
    monkeypatch.setattr(apprise_message, "SECONDS", seconds)
    monkeypatch.setattr(apprise_message, "MEMORY_BYTES", 200_000_000)
    write(engine, "one")

    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        # On a busy machine, Apprise may be given up before it connects; then `accept` ends with its time.
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
            while True:
                connection.sendall(piece)
                time.sleep(pause)

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as threads:
        server.settimeout(30)
        threads.submit(answer, server)
        settings = settings_of(engine, notify=f"json://127.0.0.1:{server.getsockname()[1]}")
        assert deliver(engine, settings) == Delivered(0, 1)
    [attempt] = EventStore(engine).newest(1)[0].deliveries
    assert (attempt.last_error or "").endswith(reason)


def test_a_new_target_gets_recent_events_only(engine: Engine) -> None:
    write(engine, "long ago", "lately")
    make_older(engine, "long ago", timedelta(days=3))
    people = RecordingTarget()
    deliver(engine, settings_of(engine), [people])
    assert people.messages == [["lately"]]


def test_quiet_hours_let_only_urgent_messages_pass(engine: Engine) -> None:
    people = RecordingTarget()
    write(engine, "a", "b")
    write(engine, "harm", kind="harmed")
    now = datetime.now()
    around = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=1):%H:%M}"
    deliver(engine, settings_of(engine, notify_quiet=around), [people])
    assert people.messages == [["harm"]]
    deliver(engine, settings_of(engine), [people])
    assert people.messages == [["harm"], ["a"], ["b"]]


@pytest.mark.parametrize(
    ("given", "at", "words"),
    [
        ({"notify_quiet": "22:00-07:00"}, time_of_day(23), "quiet hours until 07:00"),
        ({"notify_quiet": "22:00-07:00"}, time_of_day(12), ""),
        ({"notify_digest": 10}, time_of_day(12), "wait up to 10 minutes"),
        ({"notify_quiet": "22:00-07:00", "notify": ""}, time_of_day(23), ""),
    ],
)
def test_the_reason_why_messages_wait_can_be_read(
    engine: Engine, given: dict[str, Any], at: time_of_day, words: str
) -> None:
    why = held_back(settings_of(engine, **{"notify": "json://127.0.0.1", **given}), at)
    assert words in why
    assert bool(words) == bool(why)


def test_a_digest_is_one_message_when_its_oldest_event_has_waited(engine: Engine) -> None:
    people = RecordingTarget()
    write(engine, "a", "b")
    settings = settings_of(engine, notify_digest=10)
    deliver(engine, settings, [people])
    assert people.messages == []
    make_older(engine, "a", timedelta(minutes=11))
    deliver(engine, settings, [people])
    assert people.messages == [["a", "b"]]


def test_only_one_process_delivers_at_a_time(engine: Engine, receiver: Received) -> None:
    settings = settings_of(engine, notify_webhook=receiver.url)
    write(engine, "one")
    with hold(engine, "delivering messages", file="delivery"):
        assert deliver(engine, settings) == Delivered(0, 0)
    assert deliver(engine, settings) == Delivered(1, 0)


def test_a_failed_delivery_does_not_fail_a_pipeline_step(engine: Engine) -> None:
    write(engine, "one")
    try_to_deliver(engine, settings_of(engine, notify="nonsense://"))
    try_to_deliver(engine, settings_of(engine, notify_webhook="http://127.0.0.1:1/"))
    [attempt] = EventStore(engine).newest(1)[0].deliveries
    assert "cannot be reached" in str(attempt.last_error)


@pytest.mark.soak
@pytest.mark.parametrize(("kills", "written"), [(10, 600), pytest.param(50, 2500, marks=pytest.mark.soak)])
def test_kills_lose_no_message_and_repeat_at_most_one_in_a_hundred(
    kills: int, written: int, engine: Engine, receiver: Received, warehouse_url: str
) -> None:
    """The receiver sees a message twice only if the process was killed between its request and its mark."""
    incidents = [f"incident {number}" for number in range(written)]
    write(engine, *incidents)
    arguments = (warehouse_url, receiver.url, str(kills), "7")
    command = [sys.executable, "-m", "tests.integration.killed_deliveries", *arguments]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    while deliver(engine, settings_of(engine, notify_webhook=receiver.url)).sent:
        pass
    seen = Counter(receiver.incidents)
    assert set(seen) == set(incidents)
    assert sum(seen.values()) - len(incidents) <= len(incidents) // 100
    assert all(event.deliveries[0].delivered_at for event in EventStore(engine).newest(len(incidents)))


def test_the_events_command_shows_and_delivers_messages(
    engine: Engine, warehouse_url: str, receiver: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOSEL_WAREHOUSE_URL", warehouse_url)
    monkeypatch.delenv("DOSEL_NOTIFY", raising=False)
    runner = CliRunner()
    assert "no events yet" in runner.invoke(cli, ["events"]).output
    write(engine, "one")
    result = runner.invoke(cli, ["events", "--deliver"])
    assert result.exit_code == 0
    assert "no receiver" in result.output
    assert "\tdosel events" in result.output
    monkeypatch.setenv("DOSEL_NOTIFY_WEBHOOK", receiver.url)
    assert "events delivered: 1;" in runner.invoke(cli, ["events", "--deliver"]).output
    [line] = runner.invoke(cli, ["events", "--json", "--use-case", "covertype"]).output.splitlines()
    assert '"incident": "one"' in line
    receiver.status = 500
    write(engine, "two")
    assert runner.invoke(cli, ["events", "--deliver"]).exit_code == 1
    waiting = runner.invoke(cli, ["events"])
    assert waiting.exit_code == 1
    assert " UTC after 1 attempt: " in waiting.output
    # A person who repaired the receiver need not wait for the next attempt.
    receiver.status = 200
    sent = runner.invoke(cli, ["events", "--deliver"])
    assert (sent.exit_code, "events delivered: 1;" in sent.output) == (0, True)
    assert runner.invoke(cli, ["events"]).exit_code == 0
