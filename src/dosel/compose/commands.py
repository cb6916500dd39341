"""`dosel compose …`: jobs for the services of docker-compose-p2.yaml, secrets and backups."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from dosel.errors import SettingsError, StartupError

jobs = typer.Typer(no_args_is_help=True, help="Jobs of the platform in Compose.")
CHECKOUT_SECRETS = "/checkout/.env.secrets"
"""Path of the project's `.env.secrets` in the container of the check."""

Folder = Annotated[Path, typer.Argument(help="Folder of the backup.")]


@jobs.command("check-credentials")
def check_credentials() -> None:
    """Check that no password or key has its public default, if DOSEL_ENVIRONMENT is production or .env.secrets exists.

    In production, MLflow must not be open to the network, either.
    """
    from dosel.credentials import refuse_forgotten, refuse_open_mlflow
    from dosel.settings import Settings

    refuse_forgotten(os.environ, CHECKOUT_SECRETS)
    refuse_open_mlflow(os.environ)
    Settings.load()


@jobs.command("secrets")
def make_secrets() -> None:
    """Write new passwords and keys to .secrets, and .env.secrets, which names that folder."""
    from dosel.compose import secrets
    from dosel.compose.docker import project_name
    from dosel.embedded.services import ROOT

    file = secrets.write(ROOT, project_name(ROOT, os.environ))
    typer.echo(f"{secrets.FOLDER} and {file.name} are written. Keep them as safe as the volumes. Start with them:")
    for part in ("external", "p2"):
        typer.echo(f"  docker-compose --env-file {file.name} -f docker-compose-{part}.yaml up -d --build")


@jobs.command("backup")
def back_up(folder: Folder) -> None:
    """Copy all volumes to a folder; the platform must be stopped."""
    from dosel.compose import backup
    from dosel.compose.docker import project_name
    from dosel.embedded.services import ROOT

    copied = backup.backup(project_name(ROOT, os.environ), folder)
    typer.echo(
        f"{folder}: {', '.join(copied)}. Back up .env.secrets and .secrets too: they have these volumes' passwords."
    )


@jobs.command("restore")
def restore(folder: Folder) -> None:
    """Create the volumes of a backup; none of them may exist."""
    from dosel.compose import backup
    from dosel.compose.docker import project_name
    from dosel.embedded.services import ROOT

    made = backup.restore(project_name(ROOT, os.environ), folder)
    typer.echo(f"restored: {', '.join(made)}")


@jobs.command("prepare-storage")
def prepare_storage() -> None:
    """Create buckets, users and policies on the S3 server."""
    from dosel.compose import storage

    root = (_set("MINIO_ROOT_USER"), _set("MINIO_ROOT_PASSWORD"))
    keys = {storage.MLFLOW: _set("MLFLOW_S3_SECRET_KEY"), storage.PIPELINE: _set("PIPELINE_S3_SECRET_KEY")}
    # Without a key for it, there is no cluster.
    if for_cluster := os.environ.get("CLUSTER_S3_SECRET_KEY"):
        keys[storage.CLUSTER] = for_cluster
    storage.prepare(_set("DOSEL_S3_ENDPOINT"), root, keys)


@jobs.command("prepare-airflow")
def prepare_airflow() -> None:
    """Migrate Airflow's database, set the size of the pool for trainings, and make the API's entry key."""
    from dosel.embedded.services import preparation
    from dosel.entry_signatures import write_entry_key
    from dosel.settings import Settings

    settings = Settings.load()
    if settings.entry_key:
        write_entry_key(settings)
    if code := subprocess.run([sys.executable, *preparation(settings)], check=False).returncode:
        raise StartupError(f"the preparation of Airflow's database failed (exit code {code}): see above")


@jobs.command("airflow-api-server")
def airflow_api_server() -> None:
    """Run Airflow's api-server with the administrator and the key holders as users."""
    from dosel.embedded.services import airflow_users, write_airflow_passwords
    from dosel.settings import Settings

    settings = Settings.load()
    write_airflow_passwords(settings)
    environment = os.environ | {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": airflow_users(settings)}
    os.execvpe("airflow", ["airflow", "api-server"], environment)


def _set(name: str) -> str:
    if value := os.environ.get(name):
        return value
    raise SettingsError(f"{name} is not set")
