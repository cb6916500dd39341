"""Default passwords are only accepted on laptops; generated ones never replace passwords in use."""

import base64
import json
import shutil
import stat
from pathlib import Path

import pytest
from dotenv import dotenv_values

from dosel.compose import docker, secrets
from dosel.credentials import CREDENTIALS, refuse_defaults, refuse_forgotten, refuse_open_mlflow
from dosel.embedded.services import ROOT
from dosel.errors import SettingsError, StartupError
from dosel.settings import Settings

DEFAULTS = {credential.name: credential.default for credential in CREDENTIALS}


def test_the_public_secrets_are_exactly_the_refused_defaults() -> None:
    settings = dotenv_values(ROOT / ".env")
    public = {file.name: file.read_text().strip() for file in (ROOT / secrets.LAPTOP).iterdir()}
    assert {name: value for name, value in public.items() if value or name in DEFAULTS} == DEFAULTS
    assert (settings["DOSEL_ENVIRONMENT"], settings["DOSEL_SECRETS"]) == ("laptop", f"./{secrets.LAPTOP}")


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


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_production_does_not_open_mlflow_to_the_network(address: str) -> None:
    opened = {"DOSEL_ENVIRONMENT": "production", "BIND_ADDRESS": address}
    with pytest.raises(SettingsError, match=f"BIND_ADDRESS={address} opens MLflow, which asks for no password"):
        refuse_open_mlflow(opened)
    refuse_open_mlflow(opened | {"DOSEL_ENVIRONMENT": "laptop"})
    for closed in ("127.0.0.1", "10.0.0.1"):
        refuse_open_mlflow(opened | {"BIND_ADDRESS": closed})


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
    shutil.copytree(ROOT / secrets.LAPTOP, tmp_path / secrets.LAPTOP)
    with (tmp_path / ".env").open("a") as file:
        file.write("API_PORT=18989\n")
    monkeypatch.setattr(docker, "filled_volumes", lambda _: set())
    return tmp_path


def held(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text().strip() for file in folder.iterdir()}


def test_new_secrets_replace_every_default_in_a_folder_of_the_owner(installation: Path) -> None:
    file, folder = secrets.write(installation, "dosel"), installation / secrets.FOLDER
    settings, laptop = dotenv_values(file), dotenv_values(installation / ".env")
    assert {name: (laptop[name], settings[name]) for name in laptop if settings[name] != laptop[name]} == {
        "DOSEL_ENVIRONMENT": ("laptop", "production"),
        "DOSEL_SECRETS": ("./deploy/secrets", "./.secrets"),
    }
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, folder)] == [0o600, 0o700]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}
    assert held(folder).keys() == held(installation / secrets.LAPTOP).keys()
    refuse_defaults(held(folder))


def test_existing_secrets_are_not_overwritten(installation: Path) -> None:
    secrets.write(installation, "dosel")
    written = held(installation / secrets.FOLDER)
    with pytest.raises(StartupError, match="exists"):
        secrets.write(installation, "dosel")
    assert held(installation / secrets.FOLDER) == written


def test_the_passwords_of_an_earlier_secrets_file_are_kept(installation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "filled_volumes", lambda _: {"postgres"})
    earlier = "\n".join(
        ["API_PORT=28989", "DOSEL_ENVIRONMENT=production", *(f"{name}={name}-old" for name in DEFAULTS)]
    )
    (installation / ".env.secrets").write_text(earlier + "\n")
    settings = dotenv_values(secrets.write(installation, "dosel"))
    assert settings == {"API_PORT": "28989", "DOSEL_ENVIRONMENT": "production", "DOSEL_SECRETS": "./.secrets"}
    kept = held(installation / secrets.FOLDER)
    assert {name: kept[name] for name in DEFAULTS} == {name: f"{name}-old" for name in DEFAULTS}


def test_secrets_are_not_written_while_volumes_have_other_passwords(
    installation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker, "filled_volumes", lambda _: {"postgres", "minio", "data-api"})
    with pytest.raises(StartupError, match="the volumes minio, postgres were created with other passwords"):
        secrets.write(installation, "dosel")
    assert not (installation / secrets.FOLDER).exists()


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
