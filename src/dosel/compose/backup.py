"""Copies of the project's volumes, all from one moment: they are taken and put back while nothing runs."""

import json
from pathlib import Path

from dosel.compose.docker import CONFIG_LABEL, PROJECT_LABEL, REMOVE, STOP, docker, running, volumes
from dosel.errors import StartupError

IMAGE = "dosel-app"
"""Ours, since it is there; any with `tar` would do."""

LABELS = "volumes.json"


def backup(project: str, folder: Path) -> list[str]:
    """Writes each volume to `folder` as an archive, and returns their names.

    Raises:
        StartupError: something runs, there is nothing to copy, or the folder holds a backup.
    """
    _stopped(project)
    if not (found := volumes(project)):
        raise StartupError(f"there are no volumes of the project {project}")
    if (folder / LABELS).exists():
        raise StartupError(f"{folder} holds a backup: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name in found:
        _tar(project, folder, name, "-czf")
    # Last: a folder without it is half a backup.
    (folder / LABELS).write_text(json.dumps(found, indent=2))
    return sorted(found)


def restore(project: str, folder: Path) -> list[str]:
    """Makes the volumes that were copied to `folder`; there must be none of them.

    Raises:
        StartupError: something runs, volumes are there, or the folder holds no whole backup.
    """
    _stopped(project)
    if not (folder / LABELS).exists():
        raise StartupError(f"{folder} holds no whole backup: there is no {LABELS}")
    copied: dict[str, dict[str, str]] = json.loads((folder / LABELS).read_text())
    if there := sorted(volumes(project).keys() & copied.keys()):
        raise StartupError(f"the volumes {', '.join(there)} are there: if they may go, remove them with `{REMOVE}`")
    for name, labels in copied.items():
        labelled = [
            f"--label={key}={value}"
            for key, value in (labels | {PROJECT_LABEL: project}).items()
            # A sum over name and settings: under another name, Compose would offer to empty the volume.
            if key != CONFIG_LABEL
        ]
        docker("volume", "create", *labelled, f"{project}_{name}")
        _tar(project, folder, name, "-xzf")
    return sorted(copied)


def _stopped(project: str) -> None:
    if names := running(project):
        raise StartupError(
            f"{', '.join(names)} {'run' if len(names) > 1 else 'runs'}: a copy is of one moment only if nothing does; "
            f"`{STOP}` first"
        )


def _tar(project: str, folder: Path, name: str, mode: str) -> None:
    mounts = (f"--volume={project}_{name}:/volume", f"--volume={folder.absolute()}:/backup")
    # As root, who may read and set what belongs to the users of all images.
    tar = ["tar", "--numeric-owner", "-C", "/volume", mode, f"/backup/{name}.tar.gz"]
    tar += ["."] if mode == "-czf" else []
    docker("run", "--rm", "--user=0", "--network=none", *mounts, IMAGE, *tar)
