"""The lock files: every requirement is pinned and hashed, and no package index is named."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = "requirements.lock"
DEV = "requirements-dev.lock"
IMAGES = {"serving": "app", "page": "ui", "data-api": "external", "tracking": "mlflow", "pipeline": "airflow"}
LOCKS = (RUNTIME, DEV, *(f"{folder}/requirements.txt" for folder in IMAGES.values()))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def asked_for() -> list[tuple[str, Requirement]]:
    """The requirements of pyproject.toml, each with the lock that must pin it."""
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    extras = project["optional-dependencies"]
    assert extras.keys() == {"dev", "cluster"}
    assert groups.keys() == IMAGES.keys()
    asked = [(RUNTIME, line) for line in project["dependencies"]]
    asked += [(DEV, line) for line in (*extras["dev"], *extras["cluster"]) if line != "dosel[cluster]"]
    asked += [(f"{IMAGES[group]}/requirements.txt", line) for group, lines in groups.items() for line in lines]
    return [(lock, Requirement(line)) for lock, line in asked]


def pinned(*locks: str) -> dict[str, set[str]]:
    """Versions by name; a package may have several, each for some Pythons or systems."""
    versions: dict[str, set[str]] = {}
    for lock in locks:
        text = (ROOT / lock).read_text()
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\]+)", text, re.MULTILINE):
            versions.setdefault(canonicalize_name(name), set()).add(version)
    return versions


@pytest.mark.parametrize(("lock", "requirement"), asked_for(), ids=lambda value: str(getattr(value, "name", "in")))
def test_every_requirement_is_pinned_at_a_version_it_allows(lock: str, requirement: Requirement) -> None:
    versions = pinned(RUNTIME, lock)[canonicalize_name(requirement.name)]
    assert all(requirement.specifier.contains(version) for version in versions)


def test_runtime_packages_are_pinned_in_one_lock() -> None:
    """Another lock repeats a package only at the same version, for systems that `requirements.lock` does not cover."""
    runs, tools = pinned(RUNTIME), pinned(DEV)
    twice = runs.keys() & tools.keys()
    on_some_systems = re.findall(r"^([A-Za-z0-9._-]+)==\S+ ; ", (ROOT / RUNTIME).read_text(), re.MULTILINE)
    assert twice <= {canonicalize_name(name) for name in on_some_systems}
    assert {name: tools[name] for name in twice} == {name: runs[name] for name in twice}


@pytest.mark.parametrize(
    ("group", "without"),
    [
        ("serving", {"apache-airflow-core", "connectorx", "mlflow", "optuna", "streamlit"}),
        ("page", {"apache-airflow-core", "mlflow", "scikit-learn", "sqlalchemy"}),
        ("data-api", {"apache-airflow-core", "mlflow", "scikit-learn", "sqlalchemy"}),
        ("tracking", {"apache-airflow-core", "connectorx", "lightgbm", "streamlit"}),
        ("pipeline", {"streamlit"}),
    ],
)
def test_packages_of_an_image_have_the_versions_that_the_tests_use(group: str, without: set[str]) -> None:
    everything, image = pinned(RUNTIME, DEV), pinned(f"{IMAGES[group]}/requirements.txt")
    assert image.keys() & without == set()
    other = {name: versions for name, versions in image.items() if not versions <= everything.get(name, versions)}
    assert other == {}
    if group != "pipeline":
        assert image.keys() <= everything.keys()


def test_the_runtime_lock_has_no_test_tools() -> None:
    assert pinned(RUNTIME).keys() & {"pytest", "ruff", "mypy", "uv"} == set()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_a_hash(lock: str) -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", (ROOT / lock).read_text(), flags=re.MULTILINE)[1:]
    assert len(entries) > 10
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_no_package_index_is_named(lock: str) -> None:
    lines = (ROOT / lock).read_text().splitlines()
    assert [line for line in lines if "://" in line or line.lstrip().startswith(("-i", "--index", "--find"))] == []


def test_the_lock_covers_every_supported_python_and_system() -> None:
    """The current numpy supports fewer Python versions than dosel, so the lock pins one for each."""
    assert len(pinned(RUNTIME)["numpy"]) > 1
    assert "sys_platform" in (ROOT / RUNTIME).read_text()
