"""The set-up script: one line for each obstacle, and only pinned packages."""

import fcntl
import importlib.util
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from queue import Queue
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

FILE = Path(__file__).parents[2] / "scripts" / "setup_venv.py"

LOCK = r"""# made by uv
a==1.0 \
    --hash=sha256:aa
    # via dosel
uvicorn==0.40 \
    --hash=sha256:dd
"""
DEV_LOCK = r"""uv==0.9.1 ; python_version >= '3.11' \
    --hash=sha256:bb \
    --hash=sha256:cc
"""


@pytest.fixture
def setup_venv(tmp_path: Path) -> Any:
    """The script as a module that works in a temporary folder."""
    spec = importlib.util.spec_from_file_location("setup_venv", FILE)
    assert spec
    assert spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ROOT, module.VENV = tmp_path, tmp_path / ".venv"
    module.LOCKS = (tmp_path / "requirements.lock", tmp_path / "requirements-dev.lock")
    module.STAMP = module.VENV / ".made-from"
    module.LOCK = tmp_path / ".cache" / "setup.lock"
    for lock, content in zip(module.LOCKS, (LOCK, DEV_LOCK), strict=True):
        lock.write_text(content)
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    return module


@pytest.fixture
def commands(setup_venv: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that the script would run; the one that creates the environment leaves a python there."""
    ran: list[list[str]] = []

    def start(command: list[str], **_: Any) -> SimpleNamespace:
        ran.append(command)
        setup_venv.python().parent.mkdir(parents=True, exist_ok=True)
        setup_venv.python().touch()
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(setup_venv, "subprocess", SimpleNamespace(Popen=start))
    return ran


def refusal(call: Any, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as raised:
        call()
    assert raised.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("dosel: ")
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize("version", [(3, 8, 18), (3, 10, 0), (3, 14, 0), (2, 7, 18), (4, 0, 0)])
def test_an_unsupported_python_is_refused(
    version: tuple[int, ...], setup_venv: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version_text = ".".join(map(str, version))
    python = SimpleNamespace(
        version_info=version, executable="/a/python", version=f"{version_text} (main)", stderr=sys.stderr
    )
    monkeypatch.setattr(setup_venv, "sys", python)
    message = refusal(setup_venv.check_python, capsys)
    assert f"Python 3.11 to 3.13 is needed, /a/python is {version_text};" in message
    assert "make PYTHON=" in message


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 9), (3, 13, 99)])
def test_supported_pythons_are_accepted(
    version: tuple[int, ...], setup_venv: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup_venv, "sys", SimpleNamespace(version_info=version))
    setup_venv.check_python()


@pytest.mark.parametrize("missing", ["ensurepip", "venv"])
def test_a_python_without_venv_is_refused_with_the_package_to_install(
    missing: str, setup_venv: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    message = refusal(setup_venv.check_python, capsys)
    assert f"python{sys.version_info.major}.{sys.version_info.minor}-venv" in message


def test_a_full_disk_is_refused_with_the_space_needed(
    setup_venv: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2.9e9))
    message = refusal(setup_venv.check_disk, capsys)
    assert f"2.9 GB are left on the disk of {setup_venv.ROOT}, 3 GB are needed" in message


def test_a_pin_has_all_its_hashes_and_nothing_else(setup_venv: ModuleType) -> None:
    assert setup_venv.pinned("uv").splitlines() == [
        r"uv==0.9.1 ; python_version >= '3.11' \ ".strip(),
        r"    --hash=sha256:bb \ ".rstrip(),
        "    --hash=sha256:cc",
    ]
    assert "sha256:dd" in setup_venv.pinned("uvicorn")


def test_a_package_without_a_pin_is_named(setup_venv: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert "do not pin uvi" in refusal(lambda: setup_venv.pinned("uvi"), capsys)


def test_the_real_locks_pin_the_installer(setup_venv: Any) -> None:
    setup_venv.LOCKS = [FILE.parents[1] / lock.name for lock in setup_venv.LOCKS]
    first, *hashes = setup_venv.pinned("uv").splitlines()
    assert first.startswith("uv==")
    assert hashes
    assert all(line.strip().startswith("--hash=sha256:") for line in hashes)


def test_packages_are_installed_by_hash_and_only_once(setup_venv: Any, commands: list[list[str]]) -> None:
    setup_venv.main()
    made, installer, locks, project = (" ".join(command) for command in commands)
    assert "-m venv" in made
    assert "--require-hashes" in installer
    assert "--require-hashes" in locks
    assert locks.endswith(" ".join(map(str, setup_venv.LOCKS)))
    assert "--no-deps" in project
    commands.clear()
    setup_venv.main()
    assert commands == []


@pytest.mark.parametrize(
    "changed", ["requirements.lock", "requirements-dev.lock", "pyproject.toml", ".venv/.made-from"]
)
def test_a_changed_lock_project_file_or_stamp_installs_again(
    changed: str, setup_venv: Any, commands: list[list[str]]
) -> None:
    setup_venv.main()
    commands.clear()
    with (setup_venv.ROOT / changed).open("a") as file:
        file.write("#")
    setup_venv.main()
    assert len(commands) == 4


def test_an_environment_without_its_python_is_created_again(setup_venv: Any, commands: list[list[str]]) -> None:
    setup_venv.main()
    commands.clear()
    setup_venv.python().unlink()
    setup_venv.main()
    assert len(commands) == 4


def test_a_failed_installation_is_not_marked_as_done(
    setup_venv: Any, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    succeed = setup_venv.subprocess.Popen

    def fail_at_the_lock(command: list[str], **settings: Any) -> SimpleNamespace:
        succeed(command, **settings)
        return SimpleNamespace(wait=lambda: 2 if "sync" in command else 0)

    monkeypatch.setattr(setup_venv, "subprocess", SimpleNamespace(Popen=fail_at_the_lock))
    assert "failed (exit code 2)" in refusal(setup_venv.main, capsys)
    assert len(commands) == 3
    assert not setup_venv.STAMP.exists()


def test_caches_are_in_the_project_unless_the_caller_sets_another_folder(
    setup_venv: Any, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", "/mine")
    monkeypatch.delenv("PIP_CACHE_DIR", raising=False)
    given: list[dict[str, str]] = []
    succeed = setup_venv.subprocess.Popen

    def start(command: list[str], **settings: Any) -> Any:
        given.append(settings["env"] or {})
        return succeed(command, **settings)

    monkeypatch.setattr(setup_venv, "subprocess", SimpleNamespace(Popen=start))
    setup_venv.main()
    assert given[1]["UV_CACHE_DIR"] == "/mine"
    assert given[1]["PIP_CACHE_DIR"] == str(setup_venv.ROOT / ".cache" / "pip")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_setup_prints_one_line_and_stops_its_processes(number: int, tmp_path: Path) -> None:
    """The script runs in a temporary folder with a first command that never ends."""
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "setup_venv.py"
    # The first command writes its process id and waits.
    endless = "import os, pathlib, signal; pathlib.Path('child').write_text(str(os.getpid())); signal.pause()"
    script.write_text(FILE.read_text().replace('"-m", "venv", "--clear"', f'"-c", {endless!r}'))
    for name in ("requirements.lock", "requirements-dev.lock", "pyproject.toml"):
        (tmp_path / name).write_text(LOCK)
    running = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, text=True)
    child = tmp_path / "child"
    while not (child.exists() and child.read_text()):
        assert running.poll() is None
    running.send_signal(number)
    _, message = running.communicate(timeout=30)
    assert running.returncode == 1
    assert message == "dosel: set-up was interrupted; the next start repeats it\n"
    assert not psutil.pid_exists(int(child.read_text()))


def test_a_second_setup_waits_for_the_first(
    setup_venv: Any, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: Queue[str] = Queue()
    monkeypatch.setattr(setup_venv, "print", lambda text, **_: printed.put(text), raising=False)
    setup_venv.LOCK.parent.mkdir()
    with setup_venv.LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = Thread(target=setup_venv.main)
        other.start()
        assert printed.get(timeout=10) == "another process is setting up .venv; waiting for it …"
        monkeypatch.setattr(setup_venv, "is_ready", lambda _: True)
    other.join(10)
    assert commands == []
