"""Receivers of messages: services that Apprise knows, and a JSON webhook with a signature."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import httpx

from dosel.errors import DeliveryError, SettingsError
from dosel.exchange import answer, encoding, finished
from dosel.monitor import apprise_message, messages
from dosel.settings import Settings
from dosel.warehouse.events import StoredEvent

TIMEOUT_SECONDS = 10.0
"""Time limit of one request to the webhook, its response included."""

SHOWN_BYTES = 200
"""Bytes that are read of an error's response; other responses are not read."""


class Target(Protocol):
    """A receiver. `name` has no secret. If it `takes_digests`, it has quiet hours and several events in one message."""

    @property
    def name(self) -> str: ...

    @property
    def takes_digests(self) -> bool: ...

    def send(self, events: Sequence[StoredEvent]) -> None:
        """Send one message about these events.

        Raises:
            DeliveryError: the receiver cannot be reached, or refused.
        """


class Webhook:
    """Posts each event as JSON, signed as https://www.standardwebhooks.com describes."""

    takes_digests = False

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = settings.notify_webhook
        self.name = _webhook_name(self._url)

    def send(self, events: Sequence[StoredEvent]) -> None:
        for event in events:
            content = json.dumps(messages.document(event, self._settings), ensure_ascii=False).encode()
            headers = {"Content-Type": "application/json"}
            headers |= signature(self._settings.notify_secret, f"event_{event.id}", datetime.now(UTC), content)
            try:
                finished(self._post(content, headers))
            except TimeoutError as error:
                raise DeliveryError(f"{self.name} did not finish its answer in {TIMEOUT_SECONDS:g} s") from error
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise DeliveryError(f"{self.name} cannot be reached ({type(error).__name__}: {error})") from error

    async def _post(self, content: bytes, headers: Mapping[str, str]) -> None:
        posted = answer("POST", self._url, seconds=TIMEOUT_SECONDS, content=content, headers=headers)
        async with posted as response:
            if response.is_success:
                return
            shown = bytearray()
            if encoding(response) == "identity":
                async for part in response.aiter_raw(SHOWN_BYTES):
                    shown += part
                    break
            # On one line of a log, and without commands for the terminal that shows it.
            text = "".join(c if c.isprintable() else " " for c in shown.decode("utf-8", "replace"))
            raise DeliveryError(f"{self.name} answered {response.status_code}: {text}")


class AppriseTarget:
    """One URL of `DOSEL_NOTIFY`."""

    takes_digests = True

    def __init__(self, url: str, settings: Settings) -> None:
        # Imported here: most processes that write events have no target.
        from apprise import Apprise

        self._settings = settings
        self._url = url
        scheme = url.partition(":")[0]
        if not Apprise().add(url):
            # Without the URL, which may contain a password.
            raise SettingsError(f"DOSEL_NOTIFY: Apprise does not understand the URL that starts with {scheme[:16]!r}")
        self.name = _apprise_name(url)

    def send(self, events: Sequence[StoredEvent]) -> None:
        reason = apprise_message.send(self._url, messages.title(events), messages.text(events, self._settings))
        if reason:
            raise DeliveryError(f"{self.name} did not take the message: {reason}")


def targets_of(settings: Settings) -> list[Target]:
    """The configured receivers.

    Raises:
        SettingsError: Apprise does not understand a URL.
    """
    found: list[Target] = [AppriseTarget(url, settings) for url in _apprise_urls(settings)]
    if settings.notify_webhook:
        found.append(Webhook(settings))
    return found


def target_names(settings: Settings) -> list[str]:
    """The names of the configured receivers, without a look at whether Apprise understands their URLs."""
    names = [_apprise_name(url) for url in _apprise_urls(settings)]
    return [*names, _webhook_name(settings.notify_webhook)] if settings.notify_webhook else names


def signature(secret: str, message_id: str, at: datetime, content: bytes) -> dict[str, str]:
    """The headers that name and sign a message: its id, the time in seconds since 1970, and HMAC-SHA256 of all three.

    A repeated message has the same id. Without a secret there is no signature.
    """
    seconds = str(int(at.timestamp()))
    headers = {"webhook-id": message_id, "webhook-timestamp": seconds}
    if secret:
        signed = hmac.new(secret.encode(), f"{message_id}.{seconds}.".encode() + content, hashlib.sha256)
        headers["webhook-signature"] = f"v1,{base64.b64encode(signed.digest()).decode()}"
    return headers


def _apprise_urls(settings: Settings) -> list[str]:
    return list(dict.fromkeys(settings.notify.split()))


def _apprise_name(url: str) -> str:
    return _named(url.partition(":")[0], url)


def _webhook_name(url: str) -> str:
    return _named("webhook", url)


def _named(kind: str, url: str) -> str:
    """A name for a URL that may contain secrets: it stays the same as long as the URL does."""
    return f"{kind[:40]} {hashlib.sha256(url.encode()).hexdigest()[:12]}"
