"""Messages about events: text, signature, retries and quiet hours."""

import base64
import gzip
import hashlib
import hmac
import socket
from datetime import UTC, datetime, time, timedelta
from threading import Event as Signal
from time import monotonic

import pytest

from dosel.errors import AccountingError, DeliveryError, SettingsError
from dosel.monitor import incidents, messages, targets
from dosel.monitor.delivery import FIRST_PAUSE, LONGEST_PAUSE, is_quiet, next_attempt, waiting
from dosel.monitor.targets import AppriseTarget, Webhook, signature, targets_of
from dosel.settings import Settings
from dosel.warehouse.events import Event, Kind, StoredEvent
from tests.outside import Talk, dripping, server, silent

NOW = datetime(2026, 11, 26, 3, 0, tzinfo=UTC)
SETTINGS = Settings.model_validate({"mlflow_url": "https://mlflow.test/", "airflow_url": "https://airflow.test"})


def stored(kind: Kind = "harmed", minutes: float = 0, place: str = "mlflow/#/models/m/versions/3") -> StoredEvent:
    at = NOW - timedelta(minutes=minutes)
    return StoredEvent(
        7,
        "harmed m 3",
        "covertype",
        kind,
        at,
        at,
        "version 3 is worse",
        "accuracy 0.7.",
        "dosel rollback covertype",
        place,
    )


def test_a_message_has_time_cause_link_and_command() -> None:
    event = stored()
    assert messages.title([event]) == "dosel: version 3 is worse"
    assert messages.text([event], SETTINGS).splitlines() == [
        "Since 2026-11-26 03:00:00 UTC. accuracy 0.7.",
        "Look: https://mlflow.test/#/models/m/versions/3?workflowType=machine_learning",
        "Type: dosel rollback covertype",
    ]


def test_a_message_about_several_events_lists_each() -> None:
    events = [stored(minutes=5), stored("stale", place="page")]
    assert messages.title(events) == "dosel: 2 events (harmed, stale)"
    text = messages.text(events, SETTINGS)
    assert text.count("version 3 is worse\nSince") == 2
    # The newest one, whose command is not out of date.
    assert text.splitlines()[2] == "Look: http://localhost:8503"
    assert text.count("Type: ") == 1


@pytest.mark.parametrize(
    ("place", "address"),
    [
        ("page", "http://localhost:8503"),
        ("mlflow/#/models/m", "https://mlflow.test/#/models/m?workflowType=machine_learning"),
        ("airflow/dags/x_train/runs/1", "https://airflow.test/dags/x_train/runs/1"),
    ],
)
def test_a_link_uses_the_public_address(place: str, address: str) -> None:
    assert messages.link(stored(place=place), SETTINGS) == address


def test_the_signature_is_the_hmac_of_id_time_and_body() -> None:
    headers = signature("a secret", "event_7", NOW, b"{}")
    signed = hmac.new(b"a secret", f"event_7.{int(NOW.timestamp())}.{{}}".encode(), hashlib.sha256).digest()
    assert headers == {
        "webhook-id": "event_7",
        "webhook-timestamp": str(int(NOW.timestamp())),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }
    assert "webhook-signature" not in signature("", "event_7", NOW, b"{}")


def test_the_retry_pause_doubles_up_to_an_hour_with_jitter() -> None:
    assert next_attempt(NOW, 1, 0) == NOW + FIRST_PAUSE
    assert next_attempt(NOW, 3, 0) == NOW + 4 * FIRST_PAUSE
    assert next_attempt(NOW, 3, 1) == NOW + 2 * FIRST_PAUSE
    assert next_attempt(NOW, 500, 0) == NOW + LONGEST_PAUSE


@pytest.mark.parametrize(
    ("hours", "at", "quiet"),
    [
        ("22:00-07:00", time(23), True),
        ("22:00-07:00", time(6, 59), True),
        ("22:00-07:00", time(7), False),
        ("12:00-13:30", time(13), True),
        ("12:00-13:30", time(11, 59), False),
        ("", time(0), False),
    ],
)
def test_quiet_hours_may_span_midnight(hours: str, at: time, quiet: bool) -> None:
    assert is_quiet(Settings.model_validate({"notify_quiet": hours}).quiet_hours, at) is quiet


@pytest.mark.parametrize("hours", ["22-7-8", "late", "22:00", "25:00-07:00"])
def test_invalid_quiet_hours_are_refused_with_an_example(hours: str) -> None:
    with pytest.raises(SettingsError, match="DOSEL_NOTIFY_QUIET: expected hours such as 22:00-07:00"):
        _ = Settings.model_validate({"notify_quiet": hours}).quiet_hours


def test_only_harm_and_failed_tasks_bypass_quiet_hours_and_digest() -> None:
    events = [stored("stale", 20), stored("harmed"), stored("promoted"), stored("task failed")]
    urgent = [events[1], events[3]]
    digest = Settings.model_validate({"notify_digest": 30})
    assert waiting(SETTINGS, events, quiet=False, now=NOW) == events
    assert waiting(SETTINGS, events, quiet=True, now=NOW) == urgent
    assert waiting(digest, events, quiet=False, now=NOW) == urgent
    assert waiting(digest, events, quiet=False, now=NOW + timedelta(minutes=10)) == events


def test_target_names_do_not_contain_secrets() -> None:
    settings = Settings.model_validate(
        {"notify": "json://user:hush@host.test/ ntfy://ntfy.test/hush", "notify_webhook": "http://host.test/hush"}
    )
    found = targets_of(settings)
    assert [type(target) for target in found] == [AppriseTarget, AppriseTarget, Webhook]
    assert [target.name.split()[0] for target in found] == ["json", "ntfy", "webhook"]
    assert not any("hush" in target.name for target in found)
    assert "hush" not in repr(settings)


def test_an_unknown_service_is_refused_without_showing_its_url() -> None:
    with pytest.raises(SettingsError, match="starts with 'nonsense'") as error:
        targets_of(Settings.model_validate({"notify": "nonsense://user:hush@host.test"}))
    assert "hush" not in str(error.value)


REFUSED = b"HTTP/1.1 500 Error\r\nContent-Length: 100000\r\n"


def post(url: str) -> None:
    Webhook(Settings.model_validate({"notify_webhook": url})).send([stored()])


@pytest.mark.parametrize(
    "talk",
    [dripping(REFUSED + b"\r\n", b"x"), dripping(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"), silent],
    ids=["body drips", "headers drip", "silence"],
)
def test_the_limit_of_a_webhook_applies_to_the_whole_exchange(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "TIMEOUT_SECONDS", 0.3)
    began = monotonic()
    with server(talk) as (url, _), pytest.raises(DeliveryError, match=r"did not finish its answer in 0\.3 s"):
        post(url)
    assert monotonic() - began < 5


def test_a_message_counts_as_delivered_once_the_webhook_sends_a_2xx_status() -> None:
    began = monotonic()
    with server(dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n")) as (url, _):
        post(url)
    assert monotonic() - began < 5


def test_the_error_of_a_webhook_shows_the_beginning_of_its_answer() -> None:
    def long(peer: socket.socket, done: Signal) -> None:
        peer.sendall(REFUSED + b"\r\n" + b"y" * 100_000)

    with server(long) as (url, _), pytest.raises(DeliveryError, match=r"answered 500: y{200}$"):
        post(url)


def test_the_error_of_a_webhook_is_one_line_without_control_characters() -> None:
    def odd(peer: socket.socket, done: Signal) -> None:
        peer.sendall(REFUSED.replace(b"100000", b"12") + b"\r\na\x1b[2K\r\nb\xc2\x9bc\xe9")

    with server(odd) as (url, _), pytest.raises(DeliveryError, match=r"answered 500: a \[2K  b c�$"):
        post(url)


def test_a_compressed_answer_of_a_webhook_is_not_inflated() -> None:
    content = gzip.compress(gzip.compress(b" " * 1_000_000))

    def packed(peer: socket.socket, done: Signal) -> None:
        peer.sendall(
            REFUSED.replace(b"100000", b"%d" % len(content)) + b"Content-Encoding: gzip, gzip\r\n\r\n" + content
        )

    with server(packed) as (url, _), pytest.raises(DeliveryError, match=r"answered 500: $"):
        post(url)


def test_a_webhook_that_redirects_has_not_accepted() -> None:
    def elsewhere(peer: socket.socket, done: Signal) -> None:
        peer.sendall(b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n")

    with server(elsewhere) as (url, served), pytest.raises(DeliveryError, match="answered 302"):
        post(url)
    assert len(served) == 1


class TestFailedTask:
    def test_event_names_the_run_and_the_reason(self) -> None:
        event = incidents.task_failed("penguins_train", "register", "run 1", ValueError("no 12"), NOW)
        assert (event.use_case, event.kind) == ("penguins", "task failed")
        assert event.what == "the task register of penguins_train failed after all its retries"
        assert event.evidence == "ValueError: no 12"
        assert event.place == "airflow/dags/penguins_train/runs/run 1"

    def test_the_same_failure_is_one_incident_per_day(self) -> None:
        def incident(error: BaseException | None, now: datetime = NOW, run: str = "1") -> str:
            return incidents.task_failed("penguins_train", "train", run, error, now).incident

        first = incident(ValueError("batch 12 is bad"))
        assert first == incident(ValueError("batch 13 is bad"), run="2")
        assert first != incident(ValueError("the disk is full"))
        assert first != incident(ValueError("batch 12 is bad"), NOW + timedelta(days=1))
        assert "killed" in incidents.task_failed("a_b", "train", "1", None, NOW).evidence


def test_stale_events_of_several_processes_are_one_incident() -> None:
    events = [incidents.stale("penguins", version, NOW, "the registry") for version in (3, None)]
    assert events[0].incident == events[1].incident
    assert events[0].what == "penguins: the prediction API cannot follow Production; version 3 keeps answering"
    assert events[1].what.endswith("no version answers")
    assert events[0].since == NOW


def test_each_audit_difference_is_one_incident() -> None:
    def event(text: str) -> Event:
        return incidents.audit_mismatch("penguins", AccountingError(text))

    assert event("batch 1").incident == event("batch 1").incident != event("batch 2").incident
    assert event("batch 1").command == "dosel batches penguins"
