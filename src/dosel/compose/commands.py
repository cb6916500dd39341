"""`dosel compose …`: what the services of docker-compose-p2.yaml run or wait for."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from dosel.compose import backup, secrets
from dosel.compose.docker import project_name
from dosel.credentials import refuse_forgotten
from dosel.embedded.services import PREPARATION, ROOT, write_airflow_password
from dosel.errors import SettingsError, StartupError
from dosel.settings import Settings

jobs = typer.Typer(no_args_is_help=True, help="Jobs of the platform in Compose.")
CHECKOUT_SECRETS = "/checkout/.env.secrets"
"""Where the project's folder is mounted for the check."""

Folder = Annotated[Path, typer.Argument(help="Folder of the backup.")]


@jobs.command("check-credentials")
def check_credentials() -> None:
    """Fail if a password or key is a default, in production or although others were generated."""
    refuse_forgotten(os.environ, CHECKOUT_SECRETS)
    Settings.load()


@jobs.command("secrets")
def make_secrets() -> None:
    """Write new passwords and keys to .env.secrets."""
    file = secrets.write(ROOT, project_name(ROOT, os.environ))
    typer.echo(f"{file.name} is written. Start with it, and keep it as you keep the volumes it opens:")
    for part in ("external", "p2"):
        typer.echo(f"  docker-compose --env-file {file.name} -f docker-compose-{part}.yaml up -d --build")


@jobs.command("backup")
def back_up(folder: Folder) -> None:
    """Copy all volumes to a folder; the platform must be stopped."""
    copied = backup.backup(project_name(ROOT, os.environ), folder)
    typer.echo(
        f"{folder}: {', '.join(copied)}. The passwords that open them are in .env or .env.secrets: keep those, too."
    )


@jobs.command("restore")
def restore(folder: Folder) -> None:
    """Make the volumes of a backup; there must be none."""
    made = backup.restore(project_name(ROOT, os.environ), folder)
    typer.echo(f"{', '.join(made)} are as they were")


@jobs.command("prepare-storage")
def prepare_storage() -> None:
    """Make buckets, users and policies on the S3 server."""
    from dosel.compose import storage

    root = (_set("MINIO_ROOT_USER"), _set("MINIO_ROOT_PASSWORD"))
    keys = {storage.MLFLOW: _set("MLFLOW_S3_SECRET_KEY"), storage.PIPELINE: _set("PIPELINE_S3_SECRET_KEY")}
    storage.prepare(_set("DOSEL_S3_ENDPOINT"), root, keys)


@jobs.command("prepare-airflow")
def prepare_airflow() -> None:
    """Bring Airflow's database up to date and make the pool of the trainings."""
    for arguments in PREPARATION:
        if code := subprocess.run([sys.executable, *arguments], check=False).returncode:
            raise StartupError(f"{' '.join(arguments[1:])} failed (exit code {code}): see above")


@jobs.command("airflow-password")
def airflow_password() -> None:
    """Put the administrator's password where Airflow's api-server reads it."""
    write_airflow_password(Settings.load())


def _set(name: str) -> str:
    if value := os.environ.get(name):
        return value
    raise SettingsError(f"{name} is not set")
