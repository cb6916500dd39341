"""Writes `.secrets`, a folder with new passwords and keys, and `.env.secrets`, the settings that name it."""

import re
import shutil
from pathlib import Path

from dotenv import dotenv_values

from dosel.compose import docker
from dosel.compose.docker import REMOVE
from dosel.credentials import CREDENTIALS
from dosel.errors import StartupError

FOLDER = ".secrets"
LAPTOP = Path("deploy") / "secrets"
"""The folder with the public passwords, and an empty file for each optional secret."""

WITHOUT = frozenset({"airflow-logs", "data-api", "mlflow-scratch", "scratch", "serving", "signing-key", "trusted-keys"})
"""Volumes that contain no password of the platform."""


def write(root: Path, project: str) -> Path:
    """Write `.secrets`, which only its owner can enter, and `.env.secrets`; return the latter, which replaces `.env`.

    The passwords in an `.env.secrets` of an earlier dosel are kept, since its volumes have them.

    Args:
        root: the project's folder, with its `.env`.
        project: Compose's name of the project.

    Raises:
        StartupError: the folder exists, or volumes with other passwords exist.
    """
    file, folder = root / ".env.secrets", root / FOLDER
    if folder.exists():
        raise StartupError(f"{folder} already exists; if its passwords are not in use, remove it and try again")
    base = file if file.exists() else root / ".env"
    text, earlier = base.read_text(), dotenv_values(base)
    kept = {credential.name: value for credential in CREDENTIALS if (value := earlier.get(credential.name))}
    if not kept and (made := sorted(docker.filled_volumes(project) - WITHOUT)):
        raise StartupError(
            f"the volumes {', '.join(made)} were created with other passwords, which the databases keep: back up what "
            f"you need, remove the volumes with `{REMOVE}`, then try again"
        )
    _write_files(root / LAPTOP, folder, {c.name: kept.get(c.name) or c.make() for c in CREDENTIALS})
    for name in kept:
        text = re.sub(rf"^{name}=.*\n", "", text, flags=re.MULTILINE)
    for name, value in {"DOSEL_ENVIRONMENT": "production", "DOSEL_SECRETS": f"./{FOLDER}"}.items():
        text, count = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        text += "" if count else f"{name}={value}\n"
    file.touch(mode=0o600)
    file.write_text(text)
    return file


def _write_files(laptop: Path, folder: Path, values: dict[str, str]) -> None:
    """Write a file for each secret of `laptop`, in one step; those without a new value are copied."""
    half = folder.with_name(f"{folder.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(mode=0o700)
    for public in laptop.iterdir():
        secret = half / public.name
        secret.write_text(f"{values[public.name]}\n" if public.name in values else public.read_text())
        # The containers' users have other numbers than the owner; nobody else passes the folder.
        secret.chmod(0o644)
    half.rename(folder)
