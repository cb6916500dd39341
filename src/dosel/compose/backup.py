"""Backup and restore of the project's volumes, while the platform is stopped."""

import json
from pathlib import Path

from dosel.compose.docker import CONFIG_LABEL, PROJECT_LABEL, REMOVE, STOP, docker, running, volumes
from dosel.errors import StartupError

IMAGE = "dosel-app"
"""Any image with `tar` would do; this one always exists."""

LABELS = "volumes.json"


def backup(project: str, folder: Path) -> list[str]:
    """Write each volume to `folder` as an archive, and return the volumes' names.

    Raises:
        StartupError: a container is running, there are no volumes, or the folder already has a backup.
    """
    _stopped(project)
    if not (found := volumes(project)):
        raise StartupError(f"there are no volumes of the project {project}")
    if (folder / LABELS).exists():
        raise StartupError(f"{folder} already has a backup: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name in found:
        _tar(project, folder, name, "-czf")
    # Written last: a folder without it is an incomplete backup.
    (folder / LABELS).write_text(json.dumps(found, indent=2))
    return sorted(found)


def restore(project: str, folder: Path) -> list[str]:
    """Create the volumes of the backup in `folder`; none of them may exist.

    Raises:
        StartupError: a container is running, a volume exists, or the backup is incomplete.
    """
    _stopped(project)
    if not (folder / LABELS).exists():
        raise StartupError(f"{folder} has no complete backup: {LABELS} is missing")
    copied: dict[str, dict[str, str]] = json.loads((folder / LABELS).read_text())
    if there := sorted(volumes(project).keys() & copied.keys()):
        raise StartupError(f"the volumes {', '.join(there)} exist; to replace them, remove them with `{REMOVE}` first")
    for name, labels in copied.items():
        labelled = [
            f"--label={key}={value}"
            for key, value in (labels | {PROJECT_LABEL: project}).items()
            # Compose's hash over name and settings: with a wrong one, Compose would offer to recreate the volume.
            if key != CONFIG_LABEL
        ]
        docker("volume", "create", *labelled, f"{project}_{name}")
        _tar(project, folder, name, "-xzf")
    return sorted(copied)


def _stopped(project: str) -> None:
    if names := running(project):
        raise StartupError(
            f"{', '.join(names)} {'are' if len(names) > 1 else 'is'} running: stop the platform first with `{STOP}`, "
            "so that the copies are consistent"
        )


def _tar(project: str, folder: Path, name: str, mode: str) -> None:
    # As root, since the files belong to the users of several images; what is read only cannot be changed.
    saves = mode == "-czf"
    mounts = (
        f"--volume={project}_{name}:/volume{':ro' if saves else ''}",
        f"--volume={folder.absolute()}:/backup{'' if saves else ':ro'}",
    )
    tar = ["tar", "--numeric-owner", "-C", "/volume", mode, f"/backup/{name}.tar.gz"]
    tar += ["."] if saves else []
    docker("run", "--rm", "--user=0", "--network=none", *mounts, IMAGE, *tar)
