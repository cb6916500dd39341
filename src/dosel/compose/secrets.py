"""Writes `.env.secrets`: the settings of `.env` with new passwords and keys."""

import re
from pathlib import Path

from dosel.compose import docker
from dosel.compose.docker import REMOVE
from dosel.credentials import CREDENTIALS
from dosel.errors import StartupError

WITHOUT = frozenset({"airflow-logs", "data-api", "serving", "signing-key", "trusted-keys"})
"""Volumes that contain no password of the platform."""


def write(root: Path, project: str) -> Path:
    """Write the file, which replaces `.env`; only its owner can read it.

    Args:
        root: the project's folder, with its `.env`.
        project: Compose's name of the project.

    Raises:
        StartupError: the file exists, or volumes with other passwords exist.
    """
    file = root / ".env.secrets"
    if file.exists():
        raise StartupError(f"{file} already exists; if its passwords are not in use, remove it and try again")
    if made := sorted(docker.filled_volumes(project) - WITHOUT):
        raise StartupError(
            f"the volumes {', '.join(made)} were created with other passwords, which the databases keep: back up what "
            f"you need, remove the volumes with `{REMOVE}`, then try again"
        )
    text = (root / ".env").read_text()
    changed = {credential.name: credential.make() for credential in CREDENTIALS}
    changed["DOSEL_ENVIRONMENT"] = "production"
    for name, value in changed.items():
        text, count = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        text += "" if count else f"{name}={value}\n"
    file.touch(mode=0o600)
    file.write_text(text)
    return file
