"""Verified models on this machine's disk, so that a restarted service answers while everything behind it is away.

A version's folder holds the model in skops, its proven ONNX form, what is known of it, and the SHA-256 of each. It is
written aside and moved into place whole. A folder whose sums do not fit, or that other library versions wrote, is
as good as none.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import quote

from dosel.errors import NotExplainable, UntrustedModel
from dosel.model import formats, reference
from dosel.model.stored import made_with

KEPT = 3
"""Versions of a model that are kept: what is in Production, and what somebody may roll back to."""

_SUMS = "manifest.json"
_ONNX = "classifier.onnx"
_ABOUT = "about.json"
_LAST = "last"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cached:
    """A model as it was verified, its ONNX form if that was proven, and what its keeper wrote about it.

    `reference` are the rows it was trained on, to be kept; they are not read back with the rest: see
    `ModelCache.reference`.
    """

    model: Any
    onnx: bytes | None
    about: bytes
    reference: bytes | None = None


class ModelCache:
    """Keeps models in `folder`. Several processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def store(self, name: str, number: int, cached: Cached) -> None:
        """Keeps a version, and forgets those not used for longest beyond `KEPT`."""
        home = self._folder / quote(name, safe="")
        home.mkdir(parents=True, exist_ok=True)
        half = Path(mkdtemp(prefix=".half-", dir=home))
        try:
            formats.write(cached.model, half)
            if cached.onnx is not None:
                (half / _ONNX).write_bytes(cached.onnx)
            (half / _ABOUT).write_bytes(cached.about)
            if cached.reference is not None:
                (half / reference.FILE).write_bytes(cached.reference)
            sums = {file.name: _sha256(file) for file in half.iterdir()}
            (half / _SUMS).write_text(json.dumps({"made_with": made_with(), "sha256": sums}))
            shutil.rmtree(home / str(number), ignore_errors=True)
            half.replace(home / str(number))
        except OSError:
            # Another process was faster, or the disk is full: neither keeps anybody from answering.
            log.warning("%s version %d is not kept on disk", name, number, exc_info=True)
        finally:
            shutil.rmtree(half, ignore_errors=True)
        for old in sorted(_versions(home), key=lambda folder: folder.stat().st_mtime, reverse=True)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)

    def load(self, name: str, number: int) -> Cached | None:
        """A version that is kept and whole; None if there is none."""
        folder = self._folder / quote(name, safe="") / str(number)
        try:
            manifest = json.loads((folder / _SUMS).read_text())
            sums = manifest["sha256"]
            if manifest["made_with"] != made_with() or any(_sha256(folder / file) != sums[file] for file in sums):
                log.warning("%s version %d on disk is damaged, or of other libraries; it is not used", name, number)
                return None
            onnx = (folder / _ONNX).read_bytes() if _ONNX in sums else None
            cached = Cached(formats.read(folder), onnx, (folder / _ABOUT).read_bytes())
            os.utime(folder)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, UntrustedModel):
            log.warning("%s version %d on disk cannot be read; it is not used", name, number, exc_info=True)
            return None
        return cached

    def reference(self, name: str, number: int) -> bytes | None:
        """The rows a version was trained on; None if it came without them.

        Raises:
            NotExplainable: they are damaged, or not here any more.
        """
        folder, file = self._folder / quote(name, safe="") / str(number), reference.FILE
        try:
            sums = json.loads((folder / _SUMS).read_text())["sha256"]
            if file not in sums:
                return None
            content = (folder / file).read_bytes()
            if hashlib.sha256(content).hexdigest() == sums[file]:
                return content
        except (OSError, ValueError, KeyError):
            log.warning("the training rows of %s version %d cannot be read from disk", name, number, exc_info=True)
        raise NotExplainable(
            f"the training rows of {name} version {number}, which explaining needs, are damaged or gone from this "
            "machine's disk; restart the API to fetch them anew"
        )

    def last(self, name: str) -> int | None:
        """The version that was last seen in Production; None if none was."""
        try:
            return int((self._folder / quote(name, safe="") / _LAST).read_text())
        except (OSError, ValueError):
            return None

    def note_last(self, name: str, number: int) -> None:
        """Remembers which version is in Production."""
        if self.last(name) == number:
            return
        home = self._folder / quote(name, safe="")
        try:
            home.mkdir(parents=True, exist_ok=True)
            half = home / f".{_LAST}-{os.getpid()}"
            half.write_text(str(number))
            half.replace(home / _LAST)
        except OSError:
            log.warning("that %s version %d is in Production is not kept on disk", name, number, exc_info=True)


def _versions(home: Path) -> Iterator[Path]:
    return (folder for folder in home.iterdir() if folder.name.isdigit())


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
