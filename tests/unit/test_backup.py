"""Backups of Docker volumes: taken while nothing runs, complete, and restored only into empty volumes.

`make e2e` restores a platform from a backup.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from dosel.compose import backup as module
from dosel.compose.backup import LABELS, backup, restore
from dosel.errors import StartupError

VOLUMES = {
    "mysql": {
        "com.docker.compose.project": "p",
        "com.docker.compose.volume": "mysql",
        "com.docker.compose.config-hash": "of p_mysql",
    }
}


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for Docker: its containers and volumes, which a test sets, and the commands that it received."""
    has = SimpleNamespace(running=[], volumes=dict(VOLUMES), commands=[])

    def run(*arguments: str) -> str:
        has.commands.append(" ".join(arguments))
        return ""

    monkeypatch.setattr(module, "running", lambda _: has.running)
    monkeypatch.setattr(module, "volumes", lambda _: has.volumes)
    monkeypatch.setattr(module, "docker", run)
    return has


def test_backup_copies_each_volume_and_records_its_labels(docker: SimpleNamespace, tmp_path: Path) -> None:
    assert backup("p", tmp_path / "new") == ["mysql"]
    (command,) = docker.commands
    assert f"--volume=p_mysql:/volume:ro --volume={tmp_path}/new:/backup " in command
    assert command.endswith("-czf /backup/mysql.tar.gz .")
    assert json.loads((tmp_path / "new" / LABELS).read_text()) == VOLUMES


def test_restore_labels_volumes_with_the_current_project_name(docker: SimpleNamespace, tmp_path: Path) -> None:
    backup("p", tmp_path)
    docker.volumes = {}
    docker.commands.clear()
    assert restore("q", tmp_path) == ["mysql"]
    made, filled = docker.commands
    assert "--label=com.docker.compose.project=q --label=com.docker.compose.volume=mysql q_mysql" in made
    # As root: an archive that somebody edited writes nowhere but into the volume.
    assert f"--volume=q_mysql:/volume --volume={tmp_path}:/backup:ro " in filled
    assert filled.endswith("-xzf /backup/mysql.tar.gz")


@pytest.mark.parametrize("act", [backup, restore])
def test_backup_and_restore_refuse_while_a_container_runs(act: object, docker: SimpleNamespace, tmp_path: Path) -> None:
    docker.running = ["p_mysql_1"]
    with pytest.raises(StartupError, match="p_mysql_1 is running"):
        act("p", tmp_path)  # type: ignore[operator]
    assert docker.commands == []


def test_backup_refuses_to_overwrite_an_existing_backup(docker: SimpleNamespace, tmp_path: Path) -> None:
    backup("p", tmp_path)
    with pytest.raises(StartupError, match="already has a backup"):
        backup("p", tmp_path)


def test_restore_refuses_to_overwrite_a_volume_with_data(docker: SimpleNamespace, tmp_path: Path) -> None:
    backup("p", tmp_path)
    with pytest.raises(StartupError, match="the volumes mysql exist"):
        restore("p", tmp_path)


def test_restore_refuses_an_incomplete_backup(docker: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "mysql.tar.gz").touch()
    with pytest.raises(StartupError, match="no complete backup"):
        restore("p", tmp_path)


def test_backup_refuses_a_project_without_volumes(docker: SimpleNamespace, tmp_path: Path) -> None:
    docker.volumes = {}
    with pytest.raises(StartupError, match="no volumes of the project p"):
        backup("p", tmp_path)
