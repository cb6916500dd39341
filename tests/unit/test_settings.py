"""Settings: defaults, addresses derived from ports, and invalid values."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from dosel.errors import SettingsError
from dosel.roles import Role
from dosel.settings import Settings

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_defaults_point_to_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.load()
    assert settings.home == tmp_path / ".dosel"
    assert settings.warehouse_url == f"sqlite:///{tmp_path / '.dosel' / 'warehouse.db'}"
    assert settings.tracking_uri == "http://127.0.0.1:5000"
    assert settings.data_api_url == "http://127.0.0.1:8090"
    assert settings.api_url == "http://127.0.0.1:8989"
    assert (settings.airflow_port, settings.data_api_group, settings.data_api_classes) == (8080, 6, "uci")


@pytest.mark.parametrize(
    ("port", "address"),
    [("MLFLOW_PORT", "tracking_uri"), ("DATA_API_PORT", "data_api_url"), ("API_PORT", "api_url")],
)
def test_an_address_follows_from_its_port(port: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(port, "1234")
    assert getattr(Settings.load(), address) == "http://127.0.0.1:1234"


@pytest.mark.parametrize(
    ("variable", "field", "value"),
    [
        ("DOSEL_WAREHOUSE_URL", "warehouse_url", "mysql+pymysql://store/datadb"),
        ("MLFLOW_TRACKING_URI", "tracking_uri", "http://mlflow:5000"),
        ("DOSEL_DATA_API_URL", "data_api_url", "http://elsewhere:80"),
        ("DOSEL_API_URL", "api_url", "http://api:8989"),
    ],
)
def test_an_explicit_address_is_kept(variable: str, field: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    assert getattr(Settings.load(), field) == value


def test_the_warehouse_is_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOSEL_HOME", str(tmp_path / "mine"))
    assert Settings.load().warehouse_url == f"sqlite:///{tmp_path / 'mine' / 'warehouse.db'}"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLFLOW_PORT", "0"),
        ("API_PORT", "65536"),
        ("AIRFLOW_PORT", "http"),
        ("DATA_API_GROUP", "11"),
        ("DATA_API_GROUP", ""),
        ("DATA_API_CLASSES", "cuorse"),
        ("DOSEL_SOURCE_TIMEOUT", "0"),
        ("DOSEL_INGEST_EVERY", "-1"),
        ("DOSEL_POLL_SECONDS", "nan"),
        ("DOSEL_MAX_BODY_BYTES", "10"),
        ("DOSEL_JOBS", "all"),
    ],
)
def test_an_invalid_value_is_reported_with_its_variable(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=rf"{variable}: .*\(got '{value}'\)"):
        Settings.load()


def test_all_invalid_values_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_PORT", "0")
    monkeypatch.setenv("DATA_API_GROUP", "11")
    with pytest.raises(SettingsError, match=r"MLFLOW_PORT.*; DATA_API_GROUP"):
        Settings.load()


def test_only_the_documented_names_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable HOME must not become dosel's home, in which `dosel forget` removes folders."""
    monkeypatch.chdir(tmp_path)
    before = Settings.load()
    monkeypatch.setenv("HOME", str(tmp_path / "a-person"))
    for name, field in Settings.model_fields.items():
        assert isinstance(field.validation_alias, str)
        if name.upper() != field.validation_alias:
            monkeypatch.setenv(name.upper(), "7")
    assert Settings.load() == before


def test_fields_can_be_given_by_name(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, seed=7)
    assert (settings.home, settings.seed) == (tmp_path, 7)


def test_settings_are_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings.load().seed = 1  # type: ignore[misc]


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


ANA, BEN = "a" * 16, "b" * 16


@pytest.mark.parametrize(
    ("written", "read"),
    [("", {}), (f"ana:{ANA}", {ANA: "ana"}), (f" ana:{ANA} , ben:{BEN}, ", {ANA: "ana", BEN: "ben"})],
)
def test_keys_are_parsed_with_their_names(written: str, read: dict[str, str], bare_environment: None) -> None:
    assert Settings(promote_keys=written).promote_key_names == read


def test_each_role_may_do_what_those_before_it_may(bare_environment: None) -> None:
    names = ("eve", "page", "ana", "root")
    keys = {name: f"{name}-" + "k" * 16 for name in names}
    written = ",".join(f"{name}:{role.name}:{keys[name]}" for name, role in zip(names, Role, strict=True))
    settings = Settings(keys=written)
    allowed = settings.read_key_names, settings.predict_key_names, settings.promote_key_names
    assert [list(found.values()) for found in allowed] == [list(names), list(names[1:]), list(names[2:])]


def test_with_keys_for_promotions_alone_everybody_predicts(bare_environment: None) -> None:
    settings = Settings(keys=f"ana:promoter:{ANA}")
    assert (settings.read_key_names, settings.predict_key_names) == ({}, {})
    assert settings.promote_key_names == {ANA: "ana"}


def test_the_older_settings_name_scorers_and_promoters(bare_environment: None) -> None:
    settings = Settings(predict_keys=f"both:{ANA},ben:{BEN}", promote_keys=f"both:{ANA}", keys=f"eve:reader:{'e' * 16}")
    assert set(settings.read_key_names.values()) == {"both", "ben", "eve"}
    assert set(settings.predict_key_names.values()) == {"both", "ben"}
    assert settings.promote_key_names == {ANA: "both"}


@pytest.mark.parametrize("written", [f"ana:{ANA}", f"ana:boss:{ANA}", "ana:reader:short", f":reader:{ANA}"])
def test_malformed_roles_are_refused_with_the_known_ones(written: str, bare_environment: None) -> None:
    with pytest.raises(
        SettingsError, match=r"DOSEL_KEYS: expected name:role:key.* reader, scorer, promoter, admin"
    ) as no:
        _ = Settings(keys=written).key_holders
    assert ANA not in str(no.value)


@pytest.mark.parametrize("written", [ANA, f":{ANA}", "ana:short", f"ana:{ANA},ben:{ANA}"])
def test_malformed_keys_are_refused_without_being_shown(written: str, bare_environment: None) -> None:
    with pytest.raises(SettingsError, match="DOSEL_PROMOTE_KEYS") as refusal:
        _ = Settings(promote_keys=written).promote_key_names
    assert ANA not in str(refusal.value)
    assert ANA not in repr(Settings(promote_keys=written))
