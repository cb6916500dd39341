"""`.env.secrets`: the settings of `.env` with passwords and keys that nobody else has."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from dosel.credentials import CREDENTIALS
from dosel.errors import StartupError

KEPT_BY = ("airflow-logs", "data-api")
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
    if made := sorted(_volumes(project)):
        raise StartupError(
            f"the volumes {', '.join(made)} were made with other passwords, which databases keep: back up what "
            "matters, remove them with `docker-compose -f docker-compose-p2.yaml down -v`, then try again"
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


def project_name(root: Path, environment: dict[str, str]) -> str:
    """What Compose calls a project that was not given a name: after its folder."""
    return environment.get("COMPOSE_PROJECT_NAME") or re.sub(r"[^-_a-z0-9]", "", root.name.lower())


def _volumes(project: str) -> Iterable[str]:
    """The project's volumes that hold passwords; none where there is no Docker."""
    command = ["docker", "volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={project}"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    names = listed.stdout.split() if listed.returncode == 0 else []
    return [name for name in names if not name.endswith(KEPT_BY)]
