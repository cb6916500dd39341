"""The environment of services: precedence of settings, addresses and importable packages."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from dosel.embedded.services import ROOT, environment, is_local, make_bucket, services, write_airflow_passwords
from dosel.errors import StartupError
from dosel.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, bare_environment: None) -> Settings:
    return Settings(home=tmp_path / "home")


def mode(file: Path) -> int:
    return file.stat().st_mode & 0o777


def test_the_callers_environment_overrides_the_defaults(settings: Settings) -> None:
    assert environment(settings, {})["MIN_UPDATE_TIME"] == "0"
    assert environment(settings, {"MIN_UPDATE_TIME": "300"})["MIN_UPDATE_TIME"] == "300"


@pytest.mark.parametrize(
    "name", ["DOSEL_HOME", "AIRFLOW_HOME", "AIRFLOW__CORE__EXECUTOR", "AIRFLOW__CORE__LOAD_EXAMPLES"]
)
def test_settings_that_connect_the_services_override_the_callers_environment(name: str, settings: Settings) -> None:
    assert environment(settings, {name: "another"})[name] == environment(settings, {})[name] != "another"


def test_the_rest_of_the_callers_environment_is_passed_on(settings: Settings) -> None:
    assert environment(settings, {"PATH": "/bin", "AWS_PROFILE": "me"}).items() >= {"PATH": "/bin"}.items()
    assert environment(settings, {"AWS_PROFILE": "me"})["AWS_PROFILE"] == "me"


def test_services_get_the_platforms_settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    given = environment(settings, {})
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == settings


def test_telemetry_is_disabled(settings: Settings) -> None:
    given = environment(settings, {"MLFLOW_DISABLE_TELEMETRY": "false"})
    assert given["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert given["AIRFLOW__USAGE_DATA_COLLECTION__ENABLED"] == "False"


def test_every_file_is_inside_the_home(settings: Settings) -> None:
    given = environment(settings, {})
    for name in ("AIRFLOW_HOME", "DATA_API_STATE_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME"):
        assert Path(given[name]).is_relative_to(settings.home), name
    for name in ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "DOSEL_WAREHOUSE_URL"):
        assert given[name].startswith(f"sqlite:///{settings.home}"), name


def test_artifacts_are_stored_in_s3_if_a_server_is_set(settings: Settings) -> None:
    with_s3 = Settings(home=settings.home, s3_endpoint="http://store:9000")
    commands = [" ".join(s.command) for kind in (settings, with_s3) for s in services(kind) if s.name == "mlflow"]
    assert str(settings.home / "mlflow" / "artifacts") in commands[0]
    assert "s3://mlflows3" in commands[1]
    assert "MLFLOW_S3_ENDPOINT_URL" not in environment(settings, {})
    assert environment(with_s3, {})["MLFLOW_S3_ENDPOINT_URL"] == "http://store:9000"


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "nonsense"])
def test_an_unreachable_s3_server_is_named(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    with pytest.raises(StartupError, match=rf"the S3 server at {endpoint} \(DOSEL_S3_ENDPOINT\) failed") as raised:
        make_bucket(Settings(home=tmp_path, s3_endpoint=endpoint))
    assert "hush" not in str(raised.value)


def test_every_service_listens_on_127_0_0_1(settings: Settings) -> None:
    listening = [service for service in services(settings) if service.port is not None]
    assert len(listening) >= 4
    for service in listening:
        options = dict(pairwise(service.command))
        assert options.get("--host", options.get("--server.address")) == "127.0.0.1", service.name
        assert options.get("--port", options.get("--server.port")) == str(service.port), service.name
        assert service.url == f"http://127.0.0.1:{service.port}"
        assert service.health
    assert not any("0.0.0.0" in part for service in services(settings) for part in service.command)


def test_every_port_has_a_setting(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for service in services(settings):
        if service.port is None:
            continue
        with monkeypatch.context() as moved:
            moved.setenv(service.port_setting, "4321")
            ports = {s.name: s.port for s in services(Settings.load())}
        assert ports[service.name] == 4321
        assert list(ports.values()).count(4321) == 1


def test_keys_are_created_once_and_readable_by_the_owner_only(settings: Settings) -> None:
    first = environment(settings, {})
    keys = settings.home / "airflow" / "keys.json"
    assert mode(keys) == 0o600
    assert environment(settings, {}) == first
    assert len(first["AIRFLOW__API_AUTH__JWT_SECRET"]) >= 48
    assert list(keys.parent.iterdir()) == [keys]
    other = environment(Settings(home=settings.home.parent / "other"), {})
    for name in ("AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__CORE__FERNET_KEY"):
        assert other[name] != first[name]


def test_incomplete_keys_are_created_again(settings: Settings) -> None:
    half = settings.home / "airflow" / "keys.half"
    half.parent.mkdir(parents=True)
    half.write_text('{"jwt": "')
    assert environment(settings, {})["AIRFLOW__CORE__FERNET_KEY"]


def test_the_password_file_is_readable_by_the_owner_only(settings: Settings) -> None:
    file = settings.home / "airflow" / "passwords.json"
    file.parent.mkdir(parents=True)
    file.touch(mode=0o644)
    write_airflow_passwords(Settings(home=settings.home, airflow_user="me", airflow_password="secret"))
    assert json.loads(file.read_text()) == {"me": "secret"}
    assert mode(file) == 0o600
    given = environment(settings, {})
    assert given["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"] == str(file)


def test_key_holders_are_users_of_airflow_with_the_role_of_their_key(settings: Settings) -> None:
    keys = {"eve": "e" * 16, "ana": "a" * 16}
    written = Settings(home=settings.home, keys=f"eve:reader:{keys['eve']},ana:promoter:{keys['ana']}")
    given = environment(written, {})
    assert given["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] == "eve:viewer,ana:user,admin:admin"
    (settings.home / "airflow").mkdir(parents=True, exist_ok=True)
    write_airflow_passwords(written)
    assert json.loads((settings.home / "airflow" / "passwords.json").read_text()) == keys | {"admin": "admin"}


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8090", True),
        ("http://localhost:8090/", True),
        ("http://127.0.0.1:8091", False),
        ("http://127.0.0.1", False),
        ("http://data-api:8090", False),
    ],
)
def test_services_on_this_machine_are_started(url: str, local: bool) -> None:
    assert is_local(url, 8090) is local


@pytest.mark.parametrize("package", ["airflow", "mlflow"])
def test_imports_find_the_packages_and_not_the_repositorys_folders(package: str) -> None:
    """The package wins over a folder airflow/ without __init__.py; one with an __init__.py would shadow it."""
    code = f"import importlib.util, sys; sys.path.insert(0, '.'); print(importlib.util.find_spec('{package}').origin)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    origin = Path(result.stdout.strip())
    assert origin.parts[-3:] == ("site-packages", package, "__init__.py")
    assert list((ROOT / package).rglob("*.py")) == []
