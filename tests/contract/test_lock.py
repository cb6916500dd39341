"""The lock against what asks for it: every requirement is pinned, hashed, and no index is named."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"


def asked_for() -> list[Requirement]:
    """What pyproject.toml and every requirements file of an image ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        lines += extra
    for file in ROOT.glob("*/requirements*.txt"):
        lines += [line for line in file.read_text().splitlines() if re.match(r"[A-Za-z]", line)]
    return [Requirement(line.rstrip("\\ ").split(" --hash")[0]) for line in lines]


def pinned() -> dict[str, set[str]]:
    """Versions by name; a package may have several, each for some Pythons or systems."""
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\]+)", LOCK.read_text(), re.MULTILINE):
        versions.setdefault(canonicalize_name(name), set()).add(version)
    return versions


@pytest.mark.parametrize("requirement", asked_for(), ids=lambda requirement: str(requirement.name))
def test_every_requirement_is_pinned_at_a_version_it_allows(requirement: Requirement) -> None:
    versions = pinned()[canonicalize_name(requirement.name)]
    assert all(requirement.specifier.contains(version) for version in versions)


def test_every_pin_has_a_hash() -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", LOCK.read_text(), flags=re.MULTILINE)[1:]
    assert len(entries) > 100
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_no_index_is_named() -> None:
    lines = LOCK.read_text().splitlines()
    assert [line for line in lines if "://" in line or line.lstrip().startswith(("-i", "--index", "--find"))] == []


def test_it_holds_for_every_python_and_system_that_is_supported() -> None:
    """numpy has dropped a Python that is still supported here: the lock has a version for each."""
    assert len(pinned()["numpy"]) > 1
    assert "sys_platform" in LOCK.read_text()
