"""Passwords and keys of the full platform: what each opens, and the laptop's default that `.env` gives it.

Everybody knows the defaults. They are for a machine that nobody else reaches, and refused in production.
"""

import base64
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dosel.errors import SettingsError


def _password() -> str:
    # Fit for a URL, and for a command line, where a leading - would make an option of it.
    return secrets.token_hex(24)


def _signing_key() -> str:
    return secrets.token_urlsafe(64)


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


@dataclass(frozen=True)
class Credential:
    """One environment variable. `make` gives a new value."""

    name: str
    default: str
    opens: str
    make: Callable[[], str] = _password


CREDENTIALS = (
    Credential("DOSEL_AIRFLOW_PASSWORD", "admin", "Airflow, as `DOSEL_AIRFLOW_USER`"),
    Credential(
        "AIRFLOW_FERNET_KEY",
        "bGFwdG9wLWxhcHRvcC1sYXB0b3AtbGFwdG9wLWxhcHQ=",
        "connections and variables in Airflow's database",
        _fernet_key,
    ),
    Credential(
        "AIRFLOW_JWT_SECRET",
        "laptop-laptop-laptop-laptop-laptop-laptop-laptop-laptop-laptop-jwt",
        "tokens of Airflow's tasks and users",
        _signing_key,
    ),
    Credential("AIRFLOW_SECRET_KEY", "laptop-airflow-sessions", "sessions of Airflow's pages", _signing_key),
    Credential("POSTGRES_PASSWORD", "laptop-airflow", "`postgres`, as `airflow`"),
    Credential("VALKEY_PASSWORD", "laptop-valkey", "`valkey`, the queue of tasks"),
    Credential("MYSQL_ROOT_PASSWORD", "laptop-root", "`mysql` and `mysql-data-store`, as `root`"),
    Credential("MLFLOW_DB_PASSWORD", "laptop-mlflow", "`mysql`, as `mlflow`"),
    Credential("WAREHOUSE_PASSWORD", "laptop-dosel", "`mysql-data-store`, as `dosel`"),
    Credential("MINIO_ROOT_PASSWORD", "laptop-minio", "MinIO and its console, as `MINIO_ROOT_USER`"),
    Credential("MLFLOW_S3_SECRET_KEY", "laptop-mlflow", "the bucket `mlflows3`, as `mlflow`"),
    Credential("PIPELINE_S3_SECRET_KEY", "laptop-pipeline", "the buckets `data` and `processed`, as `pipeline`"),
)


def refuse_defaults(environment: Mapping[str, str]) -> None:
    """
    Raises:
        SettingsError: a password or key that is set is empty or the laptop's; the message names each.
    """
    if known := _known(environment):
        raise SettingsError(
            f"DOSEL_ENVIRONMENT=production, but {', '.join(known)} "
            f"{'is a default' if len(known) == 1 else 'are defaults'} that everybody knows: "
            "`make secrets` writes new ones to .env.secrets, to be named with --env-file"
        )


def refuse_forgotten(environment: Mapping[str, str], generated: str) -> None:
    """Notices a command that lacks `--env-file`: it would put the laptop's passwords back where others were in use.

    Args:
        generated: the file of generated ones, as `make secrets` writes it; it need not be readable from here.

    Raises:
        SettingsError: it is there, and passwords or keys are the laptop's all the same.
    """
    if _known(environment) and os.path.exists(generated):
        raise SettingsError(
            ".env.secrets is there, but these are the laptop's passwords: add --env-file .env.secrets to the command "
            "(no password was changed), or move that file away if they are meant"
        )


def _known(environment: Mapping[str, str]) -> list[str]:
    return [c.name for c in CREDENTIALS if environment.get(c.name) in ("", c.default)]
