"""Virtual environments from a lock file, below `DOSEL_HOME`, for repeating trainings."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dosel.errors import ReproductionError

SECONDS = 1800
"""How long the installation of all packages may take."""

_COMPLETE = "complete"
"""The file that marks an environment whose packages are all installed."""


def environment_of(lock: bytes, python: str, home: Path) -> Path:
    """The Python of an environment with exactly the packages of a lock, which is made at the first call.

    Args:
        lock: a file of requirements with the hash of each package.
        python: the version of Python, as 3.11.9; its last part may differ.

    Raises:
        ReproductionError: there is no such Python, or a package cannot be installed.
    """
    minor = python.rpartition(".")[0]
    folder = home / "environments" / f"{hashlib.sha256(lock).hexdigest()[:16]}-{minor}"
    interpreter = folder / "bin" / "python"
    if (folder / _COMPLETE).exists():
        return interpreter
    # What a killed process has left is made again.
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([_python(minor), "-m", "venv", str(folder)], folder)
    requirements = folder / "requirements.lock"
    requirements.write_bytes(lock)
    install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps")
    _run([str(interpreter), *install, "-r", str(requirements)], folder)
    (folder / _COMPLETE).touch()
    return interpreter


def _python(minor: str) -> str:
    if minor == ".".join(map(str, sys.version_info[:2])):
        return sys.executable
    found = shutil.which(f"python{minor}")
    if found is None:
        raise ReproductionError(f"the version was trained with Python {minor}, which is not on the PATH; install it")
    return found


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        error = done.stderr.strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as failed:
        error = str(failed)
    if error:
        last = error.splitlines()[-1]
        raise ReproductionError(
            f"the environment {folder} cannot be made ({last}); is there a package index? --here trains with the "
            "libraries of this installation instead"
        )
