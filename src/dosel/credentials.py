"""Passwords and keys of the full platform: what each gives access to, and its default in `deploy/secrets`.

The defaults are public. They are for a machine that nobody else can reach, and production refuses them.
"""

import base64
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from dosel.errors import SettingsError

CLUSTER = "DOSEL_CLUSTER"
CERTIFICATE_DAYS = 3650


def _password() -> str:
    # Hexadecimal: safe in a URL and on a command line, where a leading - would start an option.
    return secrets.token_hex(24)


def _signing_key() -> str:
    return secrets.token_urlsafe(64)


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def new_certificate() -> str:
    """A new certificate, which is its own authority, with its private key: PEM in base64, on one line."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dosel cluster")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        # Clocks of machines differ.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return base64.urlsafe_b64encode(made.public_bytes(pem) + private).decode()


@dataclass(frozen=True)
class Credential:
    """One file, and the environment variable of its name. `make` creates a new value.

    It is checked only if the variable `only_with` is set.
    """

    name: str
    default: str
    opens: str
    make: Callable[[], str] = _password
    only_with: str = ""


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
    Credential("PIPELINE_S3_SECRET_KEY", "laptop-pipeline", "the pipeline's buckets, as `pipeline`"),
    Credential(
        "CLUSTER_S3_SECRET_KEY", "laptop-cluster", "the bucket `training-rows`, to read, as `dask`", only_with=CLUSTER
    ),
    Credential(
        "DOSEL_CLUSTER_CERTIFICATE", "", "the Dask cluster, to run any code there", new_certificate, only_with=CLUSTER
    ),
)


KEY_FILE = "signing.key"
"""The file in `DOSEL_HOME` with the secret of `cache_key`; it is not the signing key of `dosel.signing`."""
NEWEST_ENTRIES = "newest-entries-"
"""Beginning of the names of the files with the newest signed entries, one for each data store."""


def cache_key(home: Path, configured: str) -> bytes:
    """The secret with which the API signs files for itself, such as its cache: `configured`, or a key in `home`.

    The key is created on first use, readable for this user only; several processes may do so at once.

    Raises:
        OSError: the key cannot be read or created.
    """
    if configured:
        return configured.encode()
    file = home / KEY_FILE
    if not file.exists():
        home.mkdir(parents=True, exist_ok=True)
        half = home / f".{KEY_FILE}-{os.getpid()}"
        half.unlink(missing_ok=True)
        try:
            with open(os.open(half, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as target:
                target.write(_signing_key())
            with suppress(FileExistsError):
                os.link(half, file)
        finally:
            half.unlink(missing_ok=True)
    return file.read_bytes()


def refuse_defaults(environment: Mapping[str, str]) -> None:
    """Check that no password or key has its default.

    Raises:
        SettingsError: a password or key is empty or has its default; the message names each.
    """
    if known := _known(environment):
        raise SettingsError(
            f"DOSEL_ENVIRONMENT=production, but {', '.join(known)} "
            f"{'has a public default' if len(known) == 1 else 'have public defaults'}: "
            "run `make secrets` and start with --env-file .env.secrets"
        )


def refuse_forgotten(environment: Mapping[str, str], generated: str) -> None:
    """Check for a forgotten `--env-file`, which would replace the generated passwords by the defaults.

    Args:
        generated: the file that `make secrets` writes; it need not be readable.

    Raises:
        SettingsError: the file exists, but passwords or keys have their defaults.
    """
    if _known(environment) and os.path.exists(generated):
        raise SettingsError(
            ".env.secrets exists, but the passwords are the public ones: add --env-file .env.secrets to the "
            "command (no password was changed), or move that file away to use the defaults"
        )


def refuse_open_mlflow(environment: Mapping[str, str]) -> None:
    """Check that production does not publish MLflow, which asks for no password, on every address of the machine.

    Raises:
        SettingsError: BIND_ADDRESS stands for every address.
    """
    address = environment.get("BIND_ADDRESS", "127.0.0.1")
    if environment.get("DOSEL_ENVIRONMENT") == "production" and ip_address(address).is_unspecified:
        raise SettingsError(
            f"DOSEL_ENVIRONMENT=production, but BIND_ADDRESS={address} opens MLflow, which asks for no password, to "
            "the network: leave it at 127.0.0.1 and put a proxy with a login in front of the services, or name an "
            "address that only your own machines reach"
        )


def _known(environment: Mapping[str, str]) -> list[str]:
    checked = (c for c in CREDENTIALS if not c.only_with or environment.get(c.only_with))
    return [c.name for c in checked if environment.get(c.name) in ("", c.default)]
