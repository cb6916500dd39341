"""Shares what API processes of a machine read from the registry, so that ten cost it about as much as one.

Each read is kept in a small signed file with its time. A process that finds a read too old reads the registry itself,
while the others wait for the new one.
"""

import fcntl
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from dosel.credentials import cache_key
from dosel.files import read_at_most, replace_file
from dosel.settings import Settings

MOST_BYTES = 8_000_000
"""Largest read that is shared."""

CLAIM_SECONDS = 2.0
"""How long others wait for a process that has begun to read; after that they read, too."""

LOCK_SECONDS = 0.2

log = logging.getLogger("uvicorn.error")


class Confirmation(msgspec.Struct, frozen=True):
    """MLflow was asked about a model, and agreed with the ledger.

    Attributes:
        newest: the ledger's last entry then, signed or not; -1 means that the caller shall ask MLflow.
        reconciled: when MLflow was last compared with the ledger.
    """

    newest: int
    reconciled: float


class _KeptRead(msgspec.Struct, frozen=True):
    """What was read `at` a time of the machine's monotonic clock; `claimed` is when a process began to repeat it."""

    at: float
    claimed: float
    content: msgspec.Raw


class SharedReads:
    """The reads of one registry and data store, below `DOSEL_HOME`; without a disk, each process reads for itself."""

    def __init__(self, settings: Settings) -> None:
        addresses = f"{settings.tracking_uri}\n{settings.warehouse_url}".encode()
        self._folder = settings.home / "reads" / hashlib.sha256(addresses).hexdigest()[:12]
        try:
            self._key = cache_key(settings.home, settings.cache_key)
        except OSError:
            # On a full disk, say.
            self._key = secrets.token_bytes()

    def sequences(self, read: Callable[[], dict[str, int]], seconds: float) -> dict[str, int]:
        """The sequence of each model's last entry, at most so many seconds old; with 0, this process reads it now.

        Raises:
            Exception: whatever `read` raises.
        """
        content, fresh = self._last("sequences", seconds) if seconds else (None, False)
        if content is not None and fresh:
            return msgspec.json.decode(content, type=dict[str, int])
        try:
            found = read()
        except Exception:
            self.forget("sequences")
            raise
        self._keep("sequences", msgspec.json.encode(found))
        return found

    def confirmation(self, model: str, seconds: float) -> Confirmation | None:
        """The last confirmation; None if there is none.

        If it is older than so many seconds, one of the processes gets it with `newest` -1 and asks MLflow. The others
        get it as it is until that process has asked.
        """
        content, fresh = self._last(model, seconds)
        if content is None:
            return None
        found = msgspec.json.decode(content, type=Confirmation)
        return found if fresh else msgspec.structs.replace(found, newest=-1)

    def confirm(self, model: str, confirmation: Confirmation) -> None:
        """Share what this process has just read."""
        self._keep(model, msgspec.json.encode(confirmation))

    def forget(self, name: str) -> None:
        """Drop a read that this process failed to repeat, so that the others repeat it."""
        with suppress(OSError):
            (self._folder / name).unlink(missing_ok=True)

    def _last(self, name: str, seconds: float) -> tuple[bytes | None, bool]:
        """The content of a read, and whether it is young enough, or another process is about to repeat it."""
        now = time.monotonic()
        try:
            with self._locked(name):
                kept = self._read(name)
                # After a restart of the machine its clock begins at 0 again.
                if kept is None or kept.at > now:
                    return None, False
                if now - kept.at < seconds or 0 <= now - kept.claimed < CLAIM_SECONDS:
                    return bytes(kept.content), True
                self._write(name, _KeptRead(kept.at, now, kept.content))
                return bytes(kept.content), False
        except OSError:
            log.debug("%s cannot be shared", name, exc_info=True)
        return None, False

    def _keep(self, name: str, content: bytes) -> None:
        try:
            with self._locked(name):
                self._write(name, _KeptRead(time.monotonic(), 0.0, msgspec.Raw(content)))
        except OSError:
            log.debug("%s cannot be shared", name, exc_info=True)

    def _read(self, name: str) -> _KeptRead | None:
        try:
            signature, _, content = read_at_most(self._folder / name, MOST_BYTES).partition(b"\n")
        except FileNotFoundError:
            return None
        if not hmac.compare_digest(signature, self._signature(name, content)):
            return None
        return msgspec.json.decode(content, type=_KeptRead)

    def _write(self, name: str, kept: _KeptRead) -> None:
        content = msgspec.json.encode(kept)
        replace_file(self._folder / name, self._signature(name, content) + b"\n" + content)

    def _signature(self, name: str, content: bytes) -> bytes:
        return (
            hmac.new(self._key, f"look {self._folder.name} {name}\n".encode() + content, "sha256").hexdigest().encode()
        )

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold the lock of a read, which no process keeps while it waits for anything else.

        Raises:
            TimeoutError: a process keeps it all the same.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self._folder / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            until = time.monotonic() + LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise TimeoutError(f"the lock of {name} is kept by another process") from None
                    time.sleep(0.002)
            yield
        finally:
            os.close(lock)
