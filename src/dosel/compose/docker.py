"""The project's containers and volumes, by Docker's command line."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from dosel.errors import StartupError

_BOTH = "docker-compose -f docker-compose-external.yaml -f docker-compose-p2.yaml"
STOP, REMOVE = f"{_BOTH} stop", f"{_BOTH} down -v"
"""With both files, since their shared network is removed only with its last user."""

PROJECT_LABEL = "com.docker.compose.project"
VOLUME_LABEL = "com.docker.compose.volume"
CONFIG_LABEL = "com.docker.compose.config-hash"
SECONDS = 3600
"""Time limit of one command; the longest copies a volume."""


def project_name(root: Path, environment: Mapping[str, str]) -> str:
    """The project's name, as Compose derives it from the folder."""
    return environment.get("COMPOSE_PROJECT_NAME") or re.sub(r"[^-_a-z0-9]", "", root.name.lower())


def volumes(project: str) -> dict[str, dict[str, str]]:
    """The labels of the project's volumes, by name in the Compose file; empty without Docker."""
    try:
        names = docker("volume", "ls", "--quiet", "--filter", f"label={PROJECT_LABEL}={project}").split()
        found = json.loads(docker("volume", "inspect", *names)) if names else []
    except StartupError:
        return {}
    return {volume["Labels"][VOLUME_LABEL]: volume["Labels"] for volume in found}


def filled_volumes(project: str) -> set[str]:
    """The project's volumes that are not empty: a refused start leaves empty ones."""
    made = {f"{project}_{name}": name for name in volumes(project)}
    if not made:
        return set()
    known = json.loads(docker("system", "df", "--verbose", "--format", "{{json .Volumes}}"))
    empty = {volume["Name"] for volume in known if volume["Size"] == "0B"}
    return {name for full, name in made.items() if full not in empty}


def running(project: str) -> list[str]:
    """Names of the project's running containers."""
    return docker("ps", "--filter", f"label={PROJECT_LABEL}={project}", "--format", "{{.Names}}").split()


def docker(*arguments: str) -> str:
    """The output of a Docker command.

    Raises:
        StartupError: Docker does not answer, or the command failed.
    """
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=SECONDS, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise StartupError(f"Docker does not answer: {error}") from error
    if done.returncode != 0:
        raise StartupError(f"docker {' '.join(arguments[:2])}: {done.stderr.strip()}")
    return done.stdout
