"""Creates the virtual environment, with Python's standard library only.

    python3 scripts/setup_venv.py

Writes inside the project's folder only: `.venv`, and `.cache` for packages (a cache of your own can be
named with UV_CACHE_DIR and PIP_CACHE_DIR). UV_COMPILE_BYTECODE=0 leaves compiling to the imports. Does nothing if the
environment is up to date.
"""

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCKS = (ROOT / "requirements.lock", ROOT / "requirements-dev.lock")
LOCK = ROOT / ".cache" / "setup.lock"
STAMP = VENV / ".made-from"
NEEDED_BYTES = 3_000_000_000
OLDEST, NEWEST = (3, 11), (3, 13)


def main() -> None:
    made_from = (*LOCKS, ROOT / "pyproject.toml", Path(__file__))
    stamp = hashlib.sha256(b"".join(file.read_bytes() for file in made_from)).hexdigest()
    if is_ready(stamp):
        return
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another process is setting up .venv; waiting for it …", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_ready(stamp):
            set_up(stamp)


def is_ready(stamp: str) -> bool:
    """Whether the environment exists and was made from the current lock and project files."""
    return STAMP.exists() and STAMP.read_text() == stamp and python().exists()


def set_up(stamp: str) -> None:
    check_python()
    check_disk()
    began = time.monotonic()
    print("setting up .venv (a minute or two the first time) …", flush=True)
    run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    environment = os.environ | {
        "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR", str(ROOT / ".cache" / "pip")),
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(ROOT / ".cache" / "uv")),
        "UV_COMPILE_BYTECODE": os.environ.get("UV_COMPILE_BYTECODE", "1"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    installer = VENV / ".uv.txt"
    installer.write_text(pinned("uv"))
    run([str(python()), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(installer)], environment)
    uv = [str(python()), "-m", "uv", "pip"]
    target = ["--python", str(python()), "--quiet"]
    run([*uv, "sync", *target, "--require-hashes", *map(str, LOCKS)], environment)
    run([*uv, "install", *target, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], environment)
    link_openmp()
    STAMP.write_text(stamp)
    print(f"set up in {time.monotonic() - began:.0f} s", flush=True)


def python() -> Path:
    return VENV / "bin" / "python"


def check_python() -> None:
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        stop(
            f"Python 3.11 to 3.13 is needed, {sys.executable} is {sys.version.split()[0]}; make PYTHON=… names another"
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stop(f"this Python cannot make virtual environments: install its package, such as python{version}-venv")


def check_disk() -> None:
    free = shutil.disk_usage(ROOT).free
    if free < NEEDED_BYTES:
        stop(f"{free / 1e9:.1f} GB are left on the disk of {ROOT}, {NEEDED_BYTES / 1e9:.0f} GB are needed: make room")


def link_openmp() -> None:
    """Link scikit-learn's OpenMP runtime under the name that LightGBM needs, for systems without one."""
    for runtime in VENV.glob("lib/python*/site-packages/scikit_learn.libs/libgomp-*.so.*"):
        (VENV / "lib" / "openmp").mkdir()
        (VENV / "lib" / "openmp" / "libgomp.so.1").symlink_to(runtime)


def pinned(package: str) -> str:
    """The package's entry in the locks with its hashes."""
    found = re.search(rf"^{package}==(?:.*\\\n)+.*\n", "\n".join(lock.read_text() for lock in LOCKS), re.MULTILINE)
    if found is None:
        stop(f"{' and '.join(lock.name for lock in LOCKS)} do not pin {package}")
    return found.group()


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run a command in its own session, so that Ctrl-C prints one line instead of the command's traceback."""
    process = subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True)
    try:
        code = process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if code != 0:
        stop(f"{' '.join(command[:5])} … failed (exit code {code}): see above")


def end_on_signals() -> None:
    """Handle SIGHUP and SIGTERM like Ctrl-C, so that the running command is stopped, too."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def stop(message: str) -> NoReturn:
    print(f"dosel: {message}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    end_on_signals()
    try:
        main()
    except KeyboardInterrupt:
        stop("set-up was interrupted; the next start repeats it")
