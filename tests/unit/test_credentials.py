"""Default passwords are only accepted on laptops; generated ones never replace passwords in use."""

import base64
import json
import shutil
import stat
from pathlib import Path

import pytest
from dotenv import dotenv_values

from dosel.compose import docker, secrets
from dosel.credentials import CREDENTIALS, refuse_defaults, refuse_forgotten
from dosel.embedded.services import ROOT
from dosel.errors import SettingsError, StartupError
from dosel.settings import Settings

DEFAULTS = {credential.name: credential.default for credential in CREDENTIALS}


def test_the_env_file_has_exactly_the_refused_defaults() -> None:
    settings = dotenv_values(ROOT / ".env")
    assert {name: settings[name] for name in DEFAULTS} == DEFAULTS
    assert settings["DOSEL_ENVIRONMENT"] == "laptop"


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_default_password_stops_a_start_in_production(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for credential in CREDENTIALS:
        monkeypatch.setenv(credential.name, credential.make())
    monkeypatch.setenv("DOSEL_ENVIRONMENT", "production")
    monkeypatch.setenv("DOSEL_CLUSTER", "tls://scheduler:8786")
    assert Settings.load().environment == "production"
    for known in (DEFAULTS[name], ""):
        monkeypatch.setenv(name, known)
        with pytest.raises(SettingsError, match=rf"production, but {name} has a public default"):
            Settings.load()


def test_default_passwords_are_accepted_on_a_laptop(bare_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, default in DEFAULTS.items():
        monkeypatch.setenv(name, default)
    assert Settings.load().environment == "laptop"


def test_keys_of_a_cluster_are_checked_only_with_a_cluster() -> None:
    made = {c.name: c.default if c.only_with else c.make() for c in CREDENTIALS}
    refuse_defaults(made | {"DOSEL_CLUSTER": ""})
    with pytest.raises(SettingsError, match="CLUSTER_S3_SECRET_KEY, DOSEL_CLUSTER_CERTIFICATE have public defaults"):
        refuse_defaults(made | {"DOSEL_CLUSTER": "tls://scheduler:8786"})


def test_production_refuses_a_cluster_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    for credential in CREDENTIALS:
        monkeypatch.setenv(credential.name, credential.make())
    monkeypatch.setenv("DOSEL_CLUSTER", "tcp://scheduler:8786")
    assert Settings.load().cluster
    monkeypatch.setenv("DOSEL_ENVIRONMENT", "production")
    with pytest.raises(SettingsError, match=r"DOSEL_CLUSTER=tcp://scheduler:8786 is not protected: .*; use tls://"):
        Settings.load()


def test_unset_passwords_are_not_checked() -> None:
    refuse_defaults({})


def test_a_command_without_the_generated_env_file_is_refused(tmp_path: Path) -> None:
    generated = tmp_path / ".env.secrets"
    refuse_forgotten(DEFAULTS, str(generated))
    generated.touch(mode=0)
    with pytest.raises(SettingsError, match="add --env-file"):
        refuse_forgotten(DEFAULTS, str(generated))
    refuse_forgotten({credential.name: credential.make() for credential in CREDENTIALS}, str(generated))


def test_generated_credentials_are_random_and_safe_in_a_url() -> None:
    for credential in CREDENTIALS:
        one, other = credential.make(), credential.make()
        assert one != other
        assert len(one) >= 32
        assert one.replace("-", "").replace("_", "").rstrip("=").isalnum()
    fernet = next(c for c in CREDENTIALS if c.name == "AIRFLOW_FERNET_KEY")
    assert len(base64.urlsafe_b64decode(fernet.make())) == 32


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / ".env", tmp_path)
    with (tmp_path / ".env").open("a") as file:
        file.write("API_PORT=18989\n")
    monkeypatch.setattr(docker, "filled_volumes", lambda _: set())
    return tmp_path


def test_the_secrets_file_replaces_every_default_of_the_env_file(installation: Path) -> None:
    file = secrets.write(installation, "dosel")
    settings, laptop = dotenv_values(file), dotenv_values(installation / ".env")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert settings.keys() == laptop.keys()
    assert {name for name in laptop if settings[name] != laptop[name]} == {*DEFAULTS, "DOSEL_ENVIRONMENT"}
    refuse_defaults({name: value or "" for name, value in settings.items()})


def test_an_existing_secrets_file_is_not_overwritten(installation: Path) -> None:
    written = secrets.write(installation, "dosel").read_text()
    with pytest.raises(StartupError, match="exists"):
        secrets.write(installation, "dosel")
    assert (installation / ".env.secrets").read_text() == written


def test_secrets_are_not_written_while_volumes_have_other_passwords(
    installation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker, "filled_volumes", lambda _: {"postgres", "minio", "data-api"})
    with pytest.raises(StartupError, match="the volumes minio, postgres were created with other passwords"):
        secrets.write(installation, "dosel")
    assert not (installation / ".env.secrets").exists()


def test_volumes_are_read_from_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker"
    label = '"com.docker.compose.volume": "mysql"'
    program.write_text(
        f"""#!/bin/sh
        echo "$*" >> {tmp_path}/asked
        case "$2" in ls) echo p_mysql ;; inspect) echo '[{{"Labels": {{{label}}}}}]' ;; esac
        """
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert list(docker.volumes("p")) == ["mysql"]
    listing, inspection = (tmp_path / "asked").read_text().splitlines()
    assert listing.endswith("label=com.docker.compose.project=p")
    assert inspection == "volume inspect p_mysql"


def test_volumes_of_zero_bytes_do_not_count_as_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"p_mysql": "118.2MB", "p_minio": "0B", "other_mysql": "0B", "p_abroad": "N/A"}
    monkeypatch.setattr(docker, "volumes", lambda _: {"mysql": {}, "minio": {}, "abroad": {}})
    monkeypatch.setattr(
        docker, "docker", lambda *_: json.dumps([{"Name": name, "Size": size} for name, size in sizes.items()])
    )
    assert docker.filled_volumes("p") == {"mysql", "abroad"}


def test_without_docker_there_are_no_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert docker.volumes("p") == {}
    assert docker.filled_volumes("p") == set()


@pytest.mark.parametrize(
    ("folder", "environment", "name"),
    [("My.Dosel 2", {}, "mydosel2"), ("a_b-c", {}, "a_b-c"), ("x", {"COMPOSE_PROJECT_NAME": "other"}, "other")],
)
def test_the_project_name_equals_that_of_compose(folder: str, environment: dict[str, str], name: str) -> None:
    assert docker.project_name(Path("/somewhere") / folder, environment) == name
