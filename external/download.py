"""The real Covertype data set, downloaded once and cached.

A download has no time limit of its own, so it runs in a child process. The parent kills the child after a time, and the
child ends itself if the parent is gone. The child writes to its own folder; only the finished table is moved out of it.

`python -m external.download FOLDER SECONDS` is the child.
"""

import hashlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, urlopen

import numpy as np
import pandas as pd

from external.columns import AREAS, CLASSES, COLUMNS, ELU, NUMERIC, coded

# The archive that scikit-learn's `fetch_covtype` downloads: host and port, path, and its SHA-256.
ARCHIVE = ("ndownloader.figshare.com", 443)
FILE = "/files/5976039"
SHA256 = "614360d0257557dd1792834a85a1cdebfadc3c4f30b011d56afee7ffb5b15771"
PROBE_SECONDS = 3.0
CACHE = "covtype.npz"


class DownloadError(Exception):
    """The data set could not be downloaded; the message says why."""


Download = Callable[[Path, float], None]


def cached(path: Path) -> pd.DataFrame | None:
    """The coded rows of an earlier download at `path`, or None if there are none or they cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return coded(archive["rows"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def download(target: Path, seconds: float) -> None:
    """Write the whole set to `target`, a file in a folder that exists.

    Raises:
        DownloadError: the archive cannot be reached, the download failed, or it took more than `seconds`.
    """
    deadline = time.monotonic() + seconds
    probe(min(PROBE_SECONDS, seconds))
    left = max(deadline - time.monotonic(), 0.0)
    # Always the same folder, so that what a killed process left behind is found and removed.
    folder = target.parent.resolve() / "fetch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        run_child((sys.executable, "-m", "external.download", str(folder), str(left)), left)
        os.replace(folder / CACHE, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def probe(seconds: float, proxies: Callable[[], dict[str, str]] = getproxies) -> None:
    """Check quickly whether the archive, or the proxy to it, accepts connections.

    Raises:
        DownloadError: it does not within `seconds`.
    """
    host, port = ARCHIVE
    # Behind a proxy only the proxy can be reached, and perhaps only it can look up names.
    if proxy := proxies().get("https"):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        host, port = parts.hostname or host, parts.port or 80
    answers = threading.Event()

    def connect() -> None:
        with suppress(OSError):
            socket.create_connection((host, port), timeout=seconds).close()
            answers.set()

    # In a thread, because looking up a name has no time limit of its own.
    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(seconds)
    if not answers.is_set():
        raise DownloadError(f"{host} does not answer")


def run_child(command: Sequence[str], seconds: float) -> None:
    """Run `command`, and kill it after `seconds`.

    Raises:
        DownloadError: it failed (with the last line of its output) or took too long.
    """
    try:
        child = subprocess.run(
            command,
            cwd=Path(__file__).parents[1],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DownloadError(f"the download took more than {seconds:g} s") from None
    if child.returncode:
        said = child.stderr.strip().splitlines() or [f"exit status {child.returncode}"]
        raise DownloadError(f"the download failed: {said[-1]}")


def save(path: Path, features: np.ndarray, cover: np.ndarray) -> None:
    """Write rows as the archive has them: `(rows, 54)` with one-hot flags, and classes 1-7.

    Raises:
        ValueError: the rows have another layout.
    """
    areas, soils = np.split(features[:, len(NUMERIC) :], [len(AREAS)], axis=1)
    flags_set = np.column_stack([areas.sum(axis=1), soils.sum(axis=1)])
    if soils.shape[1] != len(ELU) or not (flags_set == 1).all():
        raise ValueError("the flags of areas and soils have changed")
    if not ((cover >= 1) & (cover <= CLASSES)).all():
        raise ValueError("the classes have changed")
    rows = np.empty((len(features), len(COLUMNS)), dtype=np.int16)
    rows[:, : len(NUMERIC)] = features[:, : len(NUMERIC)]
    rows[:, len(NUMERIC)] = areas.argmax(axis=1) + 1
    rows[:, len(NUMERIC) + 1] = soils.argmax(axis=1) + 1
    rows[:, len(NUMERIC) + 2] = cover
    np.savez_compressed(path, rows=rows)


def main() -> None:
    """The child process: downloads into a folder and writes the finished table there."""
    folder, seconds = sys.argv[1:]
    signal.setitimer(signal.ITIMER_REAL, float(seconds))

    with urlopen(f"https://{ARCHIVE[0]}{FILE}") as answer:
        content = answer.read()
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise SystemExit(f"the archive's SHA-256 is {found}, expected {SHA256}")
    rows = pd.read_csv(io.BytesIO(content), compression="gzip", header=None).to_numpy()
    save(Path(folder) / CACHE, rows[:, :-1], rows[:, -1])


if __name__ == "__main__":
    main()
