"""What a version keeps of the source and the libraries of its training, and environments by a lock."""

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import dosel
from dosel import environments
from dosel.environments import environment_of
from dosel.errors import ReproductionError
from dosel.model import source
from dosel.model.fingerprint import source_files
from dosel.model.source import Commit, library_changes


def test_the_archive_has_the_whole_source_and_the_lock(tmp_path: Path) -> None:
    archive, *_ = source.write(tmp_path)
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
        assert packed.read("dosel/model/source.py") == Path(source.__file__).read_bytes()
    assert len(names) == len(source_files()) + 1
    assert "requirements.lock" in names
    # Each version has one.
    assert archive.stat().st_size < 1_000_000


def test_equal_sources_give_equal_archives() -> None:
    assert source._archive.__wrapped__() == source._archive.__wrapped__()


def git(*arguments: str, folder: Path) -> None:
    named = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "-C", str(folder), *named, *arguments], check=True, capture_output=True)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in a git repository of its own, in place of dosel."""
    package = tmp_path / "repository" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("one = 1\n")
    git("init", "--quiet", folder=package.parent)
    git("add", ".", folder=package.parent)
    git("commit", "--quiet", "-m", "first", folder=package.parent)
    monkeypatch.setattr(dosel, "__file__", str(package / "__init__.py"))
    return package


def test_a_clean_checkout_is_named_by_its_commit(package: Path) -> None:
    found = source.commit.__wrapped__()
    assert (len(found.name), found.patch, str(found)) == (40, "", found.name)


def test_changes_to_a_commit_are_kept_as_a_patch(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "__init__.py").write_text("one = 2\n")
    found = source.commit.__wrapped__()
    assert str(found) == f"{found.name} with changes"
    assert "-one = 1\n+one = 2\n" in found.patch
    monkeypatch.setattr(source, "commit", lambda: found)
    assert [file.name for file in source.write(tmp_path)] == ["source.zip", "source.patch"]


def test_a_package_installed_inside_another_repository_has_no_commit(package: Path) -> None:
    git("rm", "--cached", "--quiet", "package/__init__.py", folder=package.parent)
    assert source.commit.__wrapped__() == Commit("", "")


def test_without_git_there_is_no_commit(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert source.commit.__wrapped__() == Commit("", "")


def test_patch_releases_of_python_are_no_difference_and_those_of_a_library_are() -> None:
    then = {"python": "3.11.7", "numpy": "2.4.6", "scipy": "1.17.1"}
    assert library_changes(then, then | {"python": "3.11.9"}) == {}
    now = {"python": "3.12.7", "numpy": "2.4.7"}
    assert library_changes(then, now) == {
        "python": ("3.11.7", "3.12.7"),
        "numpy": ("2.4.6", "2.4.7"),
        "scipy": ("1.17.1", ""),
    }


PYTHON = source.libraries()["python"]


@pytest.mark.soak
def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = environment_of(b"# nothing\n", PYTHON, tmp_path)
    found = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).is_relative_to(tmp_path)
    made: list[Sequence[str]] = []
    monkeypatch.setattr(environments, "_run", lambda command, folder: made.append(command))
    assert environment_of(b"# nothing\n", PYTHON, tmp_path) == python
    assert made == []


def without_venv(command: Sequence[str], folder: Path) -> None:
    """Run a command of `environment_of`; instead of an environment, which takes seconds, link this one's Python."""
    if "venv" not in command:
        return run(command, folder)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    return None


run = environments._run


def test_a_package_that_cannot_be_installed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "_run", without_venv)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    lock = b"no-such-package==1.0 --hash=sha256:" + b"0" * 64
    with pytest.raises(ReproductionError, match=r"cannot be made \(.+\); is there a package index\? --here trains"):
        environment_of(lock, PYTHON, tmp_path)
    # The next call does not take what is there for a whole environment.
    monkeypatch.setattr(environments, "_run", lambda command, folder: (folder).mkdir(exist_ok=True))
    python = environment_of(lock, PYTHON, tmp_path)
    assert not python.exists()


def test_another_python_must_be_on_the_path(tmp_path: Path) -> None:
    with pytest.raises(ReproductionError, match=r"trained with Python 3\.2, which is not on the PATH"):
        environment_of(b"", "3.2.1", tmp_path)
