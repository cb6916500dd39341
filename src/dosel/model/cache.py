"""Verified versions on this machine's disk: a restarted service answers while MLflow and the data store are down.

The cache keeps a version's folder as it was verified, and a record of the version. Each folder is written elsewhere and
then renamed, so that no reader sees half of it. The caller names the digests that the files must have; the cache does
not use a folder that differs. A record has these digests for times when the ledger cannot be asked. Records are signed
with the installation's key, so that nobody who can write to the cache can forge one.
"""

import hashlib
import hmac
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import quote

from dosel.files import read_at_most, replace_file
from dosel.model import bundle

OTHER_VERSIONS = 3
"""Versions of a model that stay, beside the one in Production: those that a rollback may need, or in shadow."""

MOST_RECORD_BYTES = 8_000_000
"""Largest record: as much as is read of an answer of MLflow."""

_FILES, _RECORD, _LAST = "files", "record.json", "last"

log = logging.getLogger(__name__)


class ModelCache:
    """Keeps versions below `folder`. Several processes may share it. `key` signs the records."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder = folder
        self._key = key

    def add(self, name: str, number: int, files: Path, record: bytes) -> bool:
        """Copy a verified folder into the cache, then remove the least recently used versions.

        Args:
            record: what the caller wants back from `record`; the cache does not look into it.

        Returns:
            Whether the version is in the cache now.
        """
        home = self._home(name)
        try:
            home.mkdir(parents=True, exist_ok=True)
            half = Path(mkdtemp(prefix=".half-", dir=home))
            try:
                shutil.copytree(files, half / _FILES)
                (half / _RECORD).write_bytes(self._signed(record, name, str(number)))
                shutil.rmtree(home / str(number), ignore_errors=True)
                half.replace(home / str(number))
            finally:
                shutil.rmtree(half, ignore_errors=True)
            # Shadows come and go while one version stays in Production, and a restart needs that one.
            others = [folder for folder in _versions(home) if folder.name != str(self.last(name))]
            for old in sorted(others, key=lambda folder: folder.stat().st_mtime, reverse=True)[OTHER_VERSIONS:]:
                shutil.rmtree(old, ignore_errors=True)
        except OSError:
            # Another process was faster, or the disk is full. The API still answers, from memory.
            log.warning("%s version %d could not be written to the cache", name, number, exc_info=True)
            return False
        return True

    def record(self, name: str, number: int) -> bytes | None:
        """The record given to `add`; None if the version is not in the cache, or the record is not signed."""
        return self._read(self._home(name) / str(number) / _RECORD, name, str(number))

    def sign(self, name: str, number: int, record: bytes) -> None:
        """Replace the record of a version whose files were verified by the ledger, if it differs."""
        file = self._home(name) / str(number) / _RECORD
        signed = self._signed(record, name, str(number))
        try:
            if self._read(file, name, str(number)) != record:
                replace_file(file, signed)
        except OSError:
            log.warning("the record of %s version %d could not be written", name, number, exc_info=True)

    def files(self, name: str, number: int, digests: Mapping[str, str]) -> Path | None:
        """The folder of a version whose files have these SHA-256 digests; None if there is none."""
        version = self._home(name) / str(number)
        if not version.is_dir():
            return None
        try:
            difference = bundle.differences(digests, bundle.hash_files(version / _FILES))
            os.utime(version)
        except OSError as error:
            difference = str(error)
        if difference:
            log.warning("%s version %d in the cache is damaged and is not used: %s", name, number, difference)
            return None
        return version / _FILES

    def last(self, name: str) -> int | None:
        """The version that was last seen in Production; None if none was, or the record is not signed."""
        seen = self._last(name)
        return seen[0] if seen else None

    def last_entry(self, name: str) -> int:
        """The ledger's entry that put it there; 0 if it is not known."""
        seen = self._last(name)
        return seen[-1] if len(seen) > 1 else 0

    def set_last(self, name: str, number: int, entry: int = 0) -> None:
        """Remember which version is in Production, and by which entry of the ledger."""
        if self._last(name) == [number, entry]:
            return
        home = self._home(name)
        try:
            home.mkdir(parents=True, exist_ok=True)
            replace_file(home / _LAST, self._signed(f"{number} {entry}".encode(), name, _LAST))
        except OSError:
            log.warning("the cache could not record that %s version %d is in Production", name, number, exc_info=True)

    def _last(self, name: str) -> list[int]:
        # An older dosel wrote the version alone.
        return [int(part) for part in (self._read(self._home(name) / _LAST, name, _LAST) or b"").split()]

    def _signed(self, content: bytes, *names: str) -> bytes:
        """The content after its signature, which also covers where the content belongs."""
        return self._signature(content, names) + b"\n" + content

    def _signature(self, content: bytes, names: tuple[str, ...]) -> bytes:
        message = b"\0".join((*(name.encode() for name in names), content))
        return hmac.new(self._key, message, hashlib.sha256).hexdigest().encode()

    def _read(self, file: Path, *names: str) -> bytes | None:
        try:
            signature, _, content = read_at_most(file, MOST_RECORD_BYTES).partition(b"\n")
        except OSError:
            return None
        if hmac.compare_digest(signature, self._signature(content, names)):
            return content
        log.warning("%s was not signed with this installation's key and is not used", file)
        return None

    def _home(self, name: str) -> Path:
        return self._folder / quote(name, safe="")


def _versions(home: Path) -> Iterator[Path]:
    return (folder for folder in home.iterdir() if folder.name.isdigit())
