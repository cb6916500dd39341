"""`.env.secrets`: the settings of `.env` with passwords and keys that nobody else has."""

import re
from pathlib import Path

from dosel.compose import docker
from dosel.compose.docker import REMOVE
from dosel.credentials import CREDENTIALS
from dosel.errors import StartupError

WITHOUT = frozenset({"airflow-logs", "data-api", "serving"})
"""Volumes that no password of ours was put in."""


def write(root: Path, project: str) -> Path:
    """Writes the file, which takes the place of `.env`, readable by its owner only.

    Args:
        root: the project's folder, with its `.env`.
        project: Compose's name for it.

    Raises:
        StartupError: the file is there, or volumes that know other passwords are.
    """
    file = root / ".env.secrets"
    if file.exists():
        raise StartupError(f"{file} exists: its values are in use; remove it first if they are not")
    if made := sorted(docker.filled_volumes(project) - WITHOUT):
        raise StartupError(
            f"the volumes {', '.join(made)} were made with other passwords, which databases keep: back up what "
            f"matters, remove them with `{REMOVE}`, then try again"
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
