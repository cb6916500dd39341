"""The Compose files and Dockerfiles as text; `make e2e` starts them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from dosel.compose.secrets import LAPTOP as LAPTOP_SECRETS
from dosel.compose.storage import CLUSTER, MLFLOW, PIPELINE
from dosel.credentials import CREDENTIALS
from dosel.settings import Settings
from external.settings import Settings as DataApiSettings

ROOT = Path(__file__).resolve().parents[2]
FILES = ("docker-compose-external.yaml", "docker-compose-p2.yaml")
RECIPES = ("airflow", "app", "external", "mlflow", "ui")
LAPTOP = dotenv_values(ROOT / ".env")
VARIABLE = re.compile(r"\$\{(\w+)(:[-?])?([^}]*)\}")


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for file in FILES:
        found |= yaml.safe_load((ROOT / file).read_text())["services"]
    return found


def keys_written_twice(node: yaml.Node) -> list[str]:
    children: list[yaml.Node] = []
    found: list[str] = []
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value]
        found = [name for name in names if names.count(name) > 1]
        children = [value for _, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    return found + [name for child in children for name in keys_written_twice(child)]


SERVICES = services()
LASTING = [name for name, service in SERVICES.items() if service["restart"] != "no"]


def variables() -> list[tuple[str, str, str]]:
    """Each variable of the Compose files: its name, `:-` or `:?`, and what follows."""
    return sorted({match for file in FILES for match in VARIABLE.findall((ROOT / file).read_text())})


def known_defaults() -> dict[str, str]:
    """The default value of each variable in the settings of the code."""
    known = {}
    for settings in (Settings, DataApiSettings):
        for name, field in settings.model_fields.items():
            known[str(field.validation_alias or name.upper())] = "" if field.default is None else str(field.default)
    return known


@pytest.mark.parametrize("file", FILES)
def test_compose_files_have_no_duplicate_keys(file: str) -> None:
    """Compose 1.29 and PyYAML use the last value of a duplicate key; Compose 2 refuses the file."""
    document = yaml.compose((ROOT / file).read_text())
    assert document
    assert keys_written_twice(document) == []


def test_the_api_keeps_its_home_in_a_volume() -> None:
    home = SERVICES["fast_api"]["environment"]["DOSEL_HOME"]
    assert [volume.partition(":")[2] for volume in SERVICES["fast_api"]["volumes"]] == [home, "/opt/trusted:ro"]
    # Whichever container is created first gives the volume its owner.
    for recipe, folders in (("app", (home, "/opt/trusted")), ("airflow", ("/opt/trusted", "/opt/scratch"))):
        made = re.findall(r"install -d -o dosel ((?:/\S+ ?)+)", (ROOT / recipe / "Dockerfile").read_text())
        assert set(folders) <= {folder for line in made for folder in line.split()}


def test_the_api_signs_its_entries_with_a_key_that_airflow_makes() -> None:
    api, airflow = SERVICES["fast_api"]["environment"], SERVICES["airflow-init"]["environment"]
    assert api["DOSEL_SIGNING_KEY"] == "none"
    assert api["DOSEL_ENTRY_KEY"] == airflow["DOSEL_ENTRY_KEY"]
    assert api["DOSEL_ENTRY_KEY"].startswith("/opt/trusted/")


@pytest.mark.parametrize("name", LASTING)
def test_every_long_running_service_has_a_health_check_a_restart_policy_and_limits(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    check = service["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert not {"curl", "wget", "ps"} & set(re.split(r"\W+", " ".join(check["test"])))


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert "/tmp" in service["tmpfs"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] <= 2000
    # These images become another user themselves, and leave no process of root behind.
    assert service["init"] is (name not in ("mysql", "mysql-data-store", "postgres"))
    assert ("cap_add" in service) is (
        name in ("mysql", "mysql-data-store", "postgres", "minio-owner", "monitoring-owner")
    )


def test_networks_separate_the_page_the_data_api_and_the_stores() -> None:
    networks = {name: set(service.get("networks", ())) for name, service in SERVICES.items()}
    assert networks["streamlit"] == {"front"}
    assert networks["data-api"] == {"dosel"}
    assert {name for name, where in networks.items() if "dosel" in where} == {
        "data-api",
        "airflow-worker",
        "airflow-cli",
    }
    for store in ("mysql", "mysql-data-store", "minio", "postgres", "valkey"):
        assert networks[store] == {"data"}


def test_only_who_has_the_signing_key_writes_the_trusted_keys() -> None:
    holders = {"airflow-init", "airflow-worker", "airflow-cli"}
    mounted = {name: service.get("volumes", []) for name, service in SERVICES.items()}
    assert {name for name, volumes in mounted.items() if "signing-key:/opt/keys" in volumes} == holders
    assert {name for name, volumes in mounted.items() if "trusted-keys:/opt/trusted" in volumes} == holders
    for name in ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer", "fast_api"):
        assert "trusted-keys:/opt/trusted:ro" in mounted[name]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_127_0_0_1_by_default(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"\$\{BIND_ADDRESS:-127\.0\.0\.1\}:\$\{\w+:-\d+\}:\d+", port)


@pytest.mark.parametrize("name", SERVICES)
def test_services_write_to_named_volumes_only(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        assert re.match(r"[a-z-]+:/", volume) or volume.endswith(":ro")


@pytest.mark.parametrize("name", LASTING)
def test_services_wait_for_healthy_services_and_finished_jobs(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        wanted = "service_healthy" if other in LASTING else "service_completed_successfully"
        assert how["condition"] == wanted


def test_the_monitoring_profile_refers_to_existing_services_and_files() -> None:
    monitoring = {name: service for name, service in SERVICES.items() if service.get("profiles") == ["monitoring"]}
    owner = monitoring.pop("monitoring-owner")
    assert monitoring.keys() == {"prometheus", "alertmanager", "grafana"}
    assert set(owner["volumes"]) < {volume for service in monitoring.values() for volume in service["volumes"]}
    assert {monitoring[name]["user"] for name in ("prometheus", "alertmanager")} == {owner["command"][1]}
    ports = {name: service["ports"][0].rpartition(":")[2] for name, service in monitoring.items()}
    folders = [volume.split(":")[0] for service in monitoring.values() for volume in service["volumes"]]
    assert [folder for folder in folders if folder.startswith(".") and not (ROOT / folder).is_dir()] == []

    prometheus = yaml.safe_load((ROOT / "deploy/monitoring/prometheus/prometheus.yml").read_text())
    [job], [managers] = prometheus["scrape_configs"], prometheus["alerting"]["alertmanagers"]
    [alias] = SERVICES["fast_api"]["networks"]["back"]["aliases"]
    api_port = SERVICES["fast_api"]["ports"][0].rpartition(":")[2]
    assert job["static_configs"] == [{"targets": [f"{alias}:{api_port}"]}]
    assert managers["static_configs"] == [{"targets": [f"alertmanager:{ports['alertmanager']}"]}]

    grafana = ROOT / "deploy/monitoring/grafana"
    [source] = yaml.safe_load((grafana / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == f"http://prometheus:{ports['prometheus']}"
    [provider] = yaml.safe_load((grafana / "provisioning/dashboards/dosel.yml").read_text())["providers"]
    assert (
        f"./deploy/monitoring/grafana/dashboards:{provider['options']['path']}:ro" in monitoring["grafana"]["volumes"]
    )
    boards = [json.loads(file.read_text()) for file in (grafana / "dashboards").glob("*.json")]
    assert {panel["datasource"]["uid"] for board in boards for panel in board["panels"]} == {source["uid"]}


def test_the_api_does_not_depend_on_mlflow() -> None:
    assert SERVICES["fast_api"]["depends_on"].keys() == {"credentials"}


def test_passwords_come_from_files_and_are_checked() -> None:
    names = {credential.name for credential in CREDENTIALS}
    declared = yaml.safe_load((ROOT / FILES[1]).read_text())["secrets"]
    assert declared == {
        file.name: {"file": f"${{DOSEL_SECRETS:-./{LAPTOP_SECRETS}}}/{file.name}"}
        for file in (ROOT / LAPTOP_SECRETS).iterdir()
    }
    assert set(SERVICES["credentials"]["secrets"]) == names
    assert {name for service in SERVICES for name in secrets_of(service)} == declared.keys()
    # A certificate may also come from the environment, as a caller's keys may.
    assert {name for name, _, _ in variables()} & names == {"DOSEL_CLUSTER_CERTIFICATE"}
    for file in FILES:
        text = (ROOT / file).read_text()
        assert not [c.default for c in CREDENTIALS if c.default and f": {c.default}\n" in text]


def secrets_of(service: str) -> list[str]:
    return [entry if isinstance(entry, str) else entry["source"] for entry in SERVICES[service].get("secrets", [])]


@pytest.mark.parametrize(
    ("service", "others"),
    [
        ("airflow-api-server", {"WAREHOUSE_PASSWORD", "PIPELINE_S3_SECRET_KEY", "VALKEY_PASSWORD"}),
        ("airflow-scheduler", {"WAREHOUSE_PASSWORD", "PIPELINE_S3_SECRET_KEY", "DOSEL_AIRFLOW_PASSWORD"}),
        ("airflow-dag-processor", {"PIPELINE_S3_SECRET_KEY", "VALKEY_PASSWORD", "AIRFLOW_JWT_SECRET"}),
        ("airflow-triggerer", {"WAREHOUSE_PASSWORD", "PIPELINE_S3_SECRET_KEY", "AIRFLOW_JWT_SECRET"}),
        ("airflow-worker", {"DOSEL_AIRFLOW_PASSWORD", "AIRFLOW_JWT_SECRET", "DOSEL_KEYS"}),
        ("fast_api", {"MLFLOW_DB_PASSWORD", "PIPELINE_S3_SECRET_KEY", "POSTGRES_PASSWORD"}),
        ("mlflow", {"WAREHOUSE_PASSWORD", "MINIO_ROOT_PASSWORD"}),
    ],
)
def test_a_service_has_no_secret_that_is_for_others(service: str, others: set[str]) -> None:
    assert set(secrets_of(service)) & (others | {"MYSQL_ROOT_PASSWORD", "MINIO_ROOT_PASSWORD"}) == set()


def test_defaults_in_compose_equal_those_of_the_code_and_the_env_file() -> None:
    defaults = {name: default for name, kind, default in variables() if kind == ":-"}
    for name, default in defaults.items():
        if name in LAPTOP:
            assert default == LAPTOP[name]
        elif name in known_defaults():
            assert default in (known_defaults()[name], known_defaults()[name].removesuffix(".0"))


def test_every_setting_is_passed_to_the_service_that_reads_it() -> None:
    embedded = re.compile(r".*_PORT|DOSEL_HOME|DOSEL_PATIENCE|DOSEL_S3_ENDPOINT")
    readers = ("fast_api", "airflow-worker", "airflow-api-server", "streamlit")
    passed = {name for service in readers for name in (*SERVICES[service]["environment"], *secrets_of(service))}
    asked = {str(field.validation_alias) for field in Settings.model_fields.values()}
    assert {name for name in asked - passed if not embedded.fullmatch(name)} == set()
    assert SERVICES["data-api"]["environment"].keys() == {name.upper() for name in DataApiSettings.model_fields}


@pytest.mark.parametrize("recipe", RECIPES)
def test_images_share_their_first_layers_install_by_hash_and_do_not_run_as_root(recipe: str) -> None:
    lines = (ROOT / recipe / "Dockerfile").read_text().splitlines()
    steps = [line for line in lines if line and not line.startswith("#")]
    shared = [line for line in (ROOT / "app" / "Dockerfile").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0].startswith("# ")
    assert steps[:3] == shared[:3]
    assert re.fullmatch(r"ARG PYTHON=python:3\.\d+-slim-\w+", steps[0])
    assert [step for step in steps if step.startswith("FROM ")] == ["FROM ${PYTHON} AS packages", "FROM ${PYTHON}"]
    assert "USER dosel" in steps[-3:]
    assert steps[-1].startswith("CMD [")
    for step in "\n".join(steps).replace("\\\n", "").splitlines():
        assert "pip --python" not in step or "--require-hashes" in step


def test_the_base_of_the_images_is_pinned_by_its_digest() -> None:
    bases = {default for name, _, default in variables() if name == "PYTHON_IMAGE"}
    assert len(bases) == 1
    [tag] = re.findall(r"ARG PYTHON=(\S+)", (ROOT / "app" / "Dockerfile").read_text())
    assert re.fullmatch(rf"{tag}@sha256:[0-9a-f]{{64}}", bases.pop())


SECRET_ENVIRONMENTS = [
    ({"URL": "x://me:{WORD}@h"}, {"WORD": "hush\n"}, {"URL": "x://me:hush@h", "WORD": "hush"}),
    ({"URL": "x://me:{OTHER}@h", "JSON": '{"a": 1}'}, {"WORD": "hush"}, {"JSON": '{"a": 1}', "WORD": "hush"}),
    ({"KEYS": "from the caller"}, {"KEYS": ""}, {"KEYS": "from the caller"}),
    ({"KEYS": "from the caller"}, {"KEYS": "from the file"}, {"KEYS": "from the file"}),
]


@pytest.mark.parametrize(("given", "files", "expected"), SECRET_ENVIRONMENTS)
def test_a_command_gets_its_secrets_in_its_environment(
    given: dict[str, str], files: dict[str, str], expected: dict[str, str], tmp_path: Path
) -> None:
    script = (ROOT / "deploy/images/with-secrets").read_text()
    assert script.count('"/run/secrets"') == 1
    (tmp_path / "run").write_text(script.replace("/run/secrets", str(tmp_path / "secrets")))
    (tmp_path / "secrets").mkdir()
    for name, content in files.items():
        (tmp_path / "secrets" / name).write_text(content)
    show = (sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))")
    command = [sys.executable, str(tmp_path / "run"), *show]
    found = json.loads(subprocess.run(command, env=given, capture_output=True, text=True, check=True).stdout)
    assert {name: value for name, value in found.items() if name != "LC_CTYPE"} == expected


def test_image_folders_have_no_module_that_would_shadow_a_package() -> None:
    assert [*ROOT.glob("airflow/*.py"), *ROOT.glob("mlflow/*.py")] == []


def test_each_bucket_has_one_user() -> None:
    assert SERVICES["mlflow"]["environment"]["MLFLOW_ARTIFACTS_DESTINATION"] == f"s3://{MLFLOW.buckets[0]}"
    assert SERVICES["mlflow"]["environment"]["AWS_ACCESS_KEY_ID"] == MLFLOW.name
    assert SERVICES["airflow-worker"]["environment"]["AWS_ACCESS_KEY_ID"] == PIPELINE.name
    assert not set(MLFLOW.buckets) & set(PIPELINE.buckets)


@pytest.mark.parametrize("name", ["dask-scheduler", "dask-worker"])
def test_the_cluster_has_no_key_but_for_reading_the_lake(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert SERVICES[name]["profiles"] == ["cluster"]
    assert environment["AWS_ACCESS_KEY_ID"] == CLUSTER.name
    assert not CLUSTER.writes
    secret = {value for value in environment.values() if re.search("SECRET|PASSWORD|KEY|CERTIFICATE", value)}
    assert secret == {"{CLUSTER_S3_SECRET_KEY}", "${DOSEL_CLUSTER_CERTIFICATE:-}"}
    assert secrets_of(name) == ["CLUSTER_S3_SECRET_KEY", "DOSEL_CLUSTER_CERTIFICATE"]
    for variable in ("DOSEL_CLUSTER", "DOSEL_CLUSTER_CERTIFICATE", "DOSEL_ENVIRONMENT"):
        assert environment[variable] == SERVICES["airflow-worker"]["environment"][variable]


def test_the_warehouse_address_is_defined_once() -> None:
    worker = SERVICES["airflow-worker"]["environment"]
    assert worker["AIRFLOW_CONN_MYSQL_DEFAULT"] == worker["DOSEL_WAREHOUSE_URL"]
    assert worker["AIRFLOW_CONN_DATA_API"] == worker["DOSEL_DATA_API_URL"]
    assert worker["AIRFLOW_CONN_PREDICTION_API"] == worker["DOSEL_API_URL"]
    assert (ROOT / FILES[1]).read_text().count("@mysql-data-store") == 1
