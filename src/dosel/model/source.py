"""What a training runs on, kept with its versions: dosel's source, its git commit, lock file and libraries.

    extra_files/source.zip      dosel's source, and the lock with the hash of each package
    extra_files/source.patch    how the source differed from its git commit, for people; only if it did

The archive alone is enough to train again (`dosel.reproduction`): a commit can be squashed away, and an image has none.
"""

import hashlib
import io
import os
import platform
import subprocess
import zipfile
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import dosel
from dosel.errors import ReproductionError
from dosel.model import tags
from dosel.model.fingerprint import source_files

ARCHIVE, PATCH, LOCK = "source.zip", "source.patch", "requirements.lock"

LIBRARIES = (
    "joblib",
    "lightgbm",
    "numpy",
    "optuna",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "threadpoolctl",
    "xgboost-cpu",
)
"""The packages whose versions can change a fitted model."""

GIT_SECONDS = 20
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of each file in the archive, so that equal sources give equal archives."""


class Commit(NamedTuple):
    """The git commit of the source, and how the tracked files differed from it; both "" without git."""

    name: str
    patch: str

    def __str__(self) -> str:
        return f"{self.name} with changes" if self.patch else self.name


def write(folder: Path) -> list[Path]:
    """Write the archive, and the patch if there is one, to files in `folder`; return the files."""
    (folder / ARCHIVE).write_bytes(_archive())
    files = [folder / ARCHIVE]
    if commit().patch:
        (folder / PATCH).write_text(commit().patch)
        files.append(folder / PATCH)
    return files


def origin() -> dict[str, object]:
    """The tags of a run that say what it runs on; what is not known is left out."""
    lock = _lock()
    known = {tags.COMMIT: str(commit()), tags.LOCK: hashlib.sha256(lock).hexdigest() if lock else ""}
    return {tags.LIBRARIES: libraries(), **{tag: value for tag, value in known.items() if value}}


def libraries() -> dict[str, str]:
    """The versions of Python and of the packages that can change a fitted model; "" for one that is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}}


def library_changes(then: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The libraries whose versions differ, by name: then and now. Releases of one minor version of Python are equal."""
    known = {name: (then[name], now.get(name, "")) for name in then}
    return {name: both for name, both in known.items() if _release(name, both[0]) != _release(name, both[1])}


@cache
def commit() -> Commit:
    """The commit of the running source."""
    # A package that is installed inside another project's folder is not that project's.
    if not _git("ls-files", "--error-unmatch", "__init__.py"):
        return Commit("", "")
    return Commit(_git("rev-parse", "HEAD").strip(), _git("diff", "HEAD", "--no-ext-diff", "--no-color", "--", "."))


def unpack(archive: Path, folder: Path) -> bytes:
    """Write the source to `folder`, which is then a place to import dosel from; return the lock, b"" if there is none.

    Raises:
        ReproductionError: the file is no such archive.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise ReproductionError(f"{archive.name} of the version cannot be unpacked ({error})") from error
    lock = folder / LOCK
    return lock.read_bytes() if lock.is_file() else b""


@cache
def _archive() -> bytes:
    content, root = io.BytesIO(), Path(dosel.__file__).parent
    files = {f"dosel/{file.relative_to(root).as_posix()}": file.read_bytes() for file in source_files()}
    if lock := _lock():
        files[LOCK] = lock
    with zipfile.ZipFile(content, "w") as packed:
        for name, of_file in files.items():
            packed.writestr(zipfile.ZipInfo(name, _EPOCH), of_file, zipfile.ZIP_DEFLATED, compresslevel=9)
    return content.getvalue()


def _lock() -> bytes:
    """The lock beside the source; b"" if dosel was installed without it."""
    file = Path(dosel.__file__).parents[2] / LOCK
    return file.read_bytes() if file.is_file() else b""


def _git(*arguments: str) -> str:
    """The output of git in the source's folder; "" if it fails, or there is no git."""
    # Not the caller's repository, if git itself started this process.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(Path(dosel.__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, env=environment, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _release(name: str, number: str) -> str:
    return number.rpartition(".")[0] if name == "python" else number
