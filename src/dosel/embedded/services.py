"""The embedded platform's services: command, port and health check of each, and their environment."""

import json
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dosel.addresses import EXPERIMENTS
from dosel.errors import StartupError
from dosel.files import replace_file
from dosel.settings import ARTIFACT_BUCKET, Settings

ROOT = Path(__file__).resolve().parents[3]
"""The project's folder, in which the services run."""

HOST = "127.0.0.1"

API = (sys.executable, "-m", "app.server", "app.main:create_app")
"""Command of the prediction API, without its address."""


@dataclass(frozen=True)
class Service:
    """A long-running process.

    Attributes:
        port_setting: the setting that changes the port.
        health: a path that answers 200 when the service is ready; "" for a service without a port of its own.
        temporary: folder for temporary files, for a service that does not remove them.
        path: the page that a person opens.
    """

    name: str
    title: str
    command: tuple[str, ...]
    port: int | None = None
    port_setting: str = ""
    health: str = ""
    temporary: Path | None = None
    path: str = ""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def address(self) -> str:
        """The address for people; empty if there is nothing to open."""
        return f"http://localhost:{self.port}" if self.port else ""

    @property
    def page(self) -> str:
        """The address of the page that a person opens; empty if there is none."""
        return self.address and self.address + self.path


def services(settings: Settings) -> tuple[Service, ...]:
    """The services in starting order, without those that the settings place on another machine."""
    elsewhere = {
        name
        for name, url, port in (
            ("data-api", settings.data_api_url, settings.data_api_port),
            ("mlflow", settings.tracking_uri, settings.mlflow_port),
            ("api", settings.api_url, settings.api_port),
        )
        if not is_local(url, port)
    }
    return tuple(service for service in _all_services(settings) if service.name not in elsewhere)


def _all_services(settings: Settings) -> tuple[Service, ...]:
    python = sys.executable
    home = settings.home
    artifacts = f"s3://{ARTIFACT_BUCKET}" if settings.s3_endpoint else str(home / "mlflow" / "artifacts")

    return (
        Service(
            "data-api",
            "Data API",
            (
                *(python, "-m", "uvicorn", "external.main:create_app", "--factory"),
                *("--host", HOST, "--port", str(settings.data_api_port), "--no-server-header"),
            ),
            settings.data_api_port,
            "DATA_API_PORT",
            "/health",
            path="/docs",
        ),
        Service(
            "mlflow",
            "MLflow",
            (
                *(python, "-m", "mlflow", "server", "--host", HOST, "--port", str(settings.mlflow_port)),
                *("--backend-store-uri", f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"),
                *("--artifacts-destination", artifacts, "--workers", "1"),
            ),
            settings.mlflow_port,
            "MLFLOW_PORT",
            "/health",
            # MLflow creates a lock file for each database and never removes it.
            temporary=home / "mlflow",
            path=EXPERIMENTS,
        ),
        Service(
            "api",
            "Prediction API",
            (*API, "--host", HOST, "--port", str(settings.api_port)),
            settings.api_port,
            "API_PORT",
            "/healthz",
            path="/docs",
        ),
        Service(
            "page",
            "Page",
            (
                *(python, "-m", "streamlit", "run", "streamlit_app.py", "--server.headless", "true"),
                *("--server.address", HOST, "--server.port", str(settings.streamlit_port)),
            ),
            settings.streamlit_port,
            "STREAMLIT_PORT",
            "/_stcore/health",
        ),
        Service(
            "airflow-api-server",
            "Airflow",
            (
                *(python, "-m", "airflow", "api-server", "--host", HOST),
                *("--port", str(settings.airflow_port), "--workers", "1"),
            ),
            settings.airflow_port,
            "AIRFLOW_PORT",
            "/api/v2/monitor/health",
        ),
        Service(
            "airflow-scheduler",
            "Airflow scheduler",
            # The api-server reads task logs from the shared folder, so the scheduler need not serve them.
            (python, "-m", "dags.preloaded", "scheduler", "--skip-serve-logs"),
        ),
        Service("airflow-dag-processor", "Airflow DAG processor", (python, "-m", "airflow", "dag-processor")),
    )


def preparation(settings: Settings) -> tuple[str, ...]:
    """The command to run before Airflow's services start, as arguments of Python."""
    return ("-m", "dags.preparation", str(settings.trainings))


def environment(settings: Settings, caller: dict[str, str]) -> dict[str, str]:
    """The environment of every service: the caller's, and the settings that connect the services."""
    home = settings.home
    airflow = home / "airflow"
    keys = _keys(airflow)
    defaults = {
        # The data API serves the next batch at each call, so that the first run gets all batches.
        "MIN_UPDATE_TIME": "0",
        "DATA_API_STATE_DIR": str(home / "data-api"),
    }
    ours = {
        "DOSEL_HOME": str(home),
        "DOSEL_WAREHOUSE_URL": settings.warehouse_url,
        "DOSEL_DATA_API_URL": settings.data_api_url,
        "DOSEL_API_URL": settings.api_url,
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # MLflow's job runners are not used here; they would be eight processes and a gigabyte.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "AIRFLOW_HOME": str(airflow),
        "AIRFLOW__API__BASE_URL": f"http://localhost:{settings.airflow_port}",
        "AIRFLOW__API_AUTH__JWT_SECRET": keys["jwt"],
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{HOST}:{settings.airflow_port}/execution/",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__FERNET_KEY": keys["fernet"],
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "dags" / "plugins"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(airflow / "passwords.json"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": airflow_users(settings),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{airflow / 'airflow.db'}",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        # Libraries keep their caches and locks here rather than in the user's home and the machine's /tmp.
        "MPLCONFIGDIR": str(home / "cache" / "matplotlib"),
        "XDG_CACHE_HOME": str(home / "cache"),
    }
    if settings.s3_endpoint:
        ours["MLFLOW_S3_ENDPOINT_URL"] = settings.s3_endpoint
    return defaults | caller | ours


def airflow_users(settings: Settings) -> str:
    """The administrator and all key holders with their roles, as Airflow's simple auth manager reads them."""
    roles = {holder.name: holder.role.in_airflow for holder in settings.key_holders} | {settings.airflow_user: "admin"}
    return ",".join(f"{name}:{role}" for name, role in roles.items())


def write_airflow_passwords(settings: Settings) -> None:
    """Write the administrator's password and the holders' keys to the file that Airflow's simple auth manager reads."""
    passwords = {holder.name: holder.key for holder in settings.key_holders}
    passwords |= {settings.airflow_user: settings.airflow_password}
    replace_file(settings.home / "airflow" / "passwords.json", json.dumps(passwords))


def make_bucket(settings: Settings) -> None:
    """Create the bucket for artifacts, if an S3 server is set and has no such bucket.

    Raises:
        StartupError: the server cannot be reached, or refused.
    """
    if not settings.s3_endpoint:
        return
    from botocore.exceptions import BotoCoreError, ClientError

    from dosel.sources.lake import create_bucket, s3_client

    try:
        s3 = s3_client(settings.s3_endpoint)
        if ARTIFACT_BUCKET not in {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}:
            create_bucket(s3, ARTIFACT_BUCKET)
    except (BotoCoreError, ClientError, ValueError) as error:
        raise StartupError(
            f"the S3 server at {settings.s3_endpoint} (DOSEL_S3_ENDPOINT) failed: {error}; is it running, and are "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY right?"
        ) from error


def is_local(url: str, port: int) -> bool:
    """Whether `url` is this machine at `port`, so that the platform starts the service itself."""
    parts = urlsplit(url)
    return parts.hostname in {"127.0.0.1", "localhost"} and (parts.port or 80) == port


def _keys(airflow: Path) -> dict[str, str]:
    """Airflow's secrets, created at the first start and kept, since Airflow encrypts stored values with them."""
    from cryptography.fernet import Fernet

    file = airflow / "keys.json"
    if not file.exists():
        keys = {"jwt": secrets.token_urlsafe(48), "fernet": Fernet.generate_key().decode()}
        replace_file(file, json.dumps(keys))
    kept: dict[str, str] = json.loads(file.read_text())
    return kept
