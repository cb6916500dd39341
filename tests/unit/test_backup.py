"""Copies of volumes: of one moment, whole, and put where nothing is. `make e2e` brings a platform back with them."""

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
    """What Docker has, to be set, and what it was told."""
    has = SimpleNamespace(running=[], volumes=dict(VOLUMES), told=[])

    def tell(*arguments: str) -> str:
        has.told.append(" ".join(arguments))
        return ""

    monkeypatch.setattr(module, "running", lambda _: has.running)
    monkeypatch.setattr(module, "volumes", lambda _: has.volumes)
    monkeypatch.setattr(module, "docker", tell)
    return has


def test_each_volume_is_copied_and_named_last(docker: SimpleNamespace, tmp_path: Path) -> None:
    assert backup("p", tmp_path / "new") == ["mysql"]
    (told,) = docker.told
    assert f"--volume=p_mysql:/volume --volume={tmp_path}/new:/backup" in told
    assert told.endswith("-czf /backup/mysql.tar.gz .")
    assert json.loads((tmp_path / "new" / LABELS).read_text()) == VOLUMES


def test_restored_volumes_have_their_labels_and_the_current_project_name(
    docker: SimpleNamespace, tmp_path: Path
) -> None:
    backup("p", tmp_path)
    docker.volumes = {}
    docker.told.clear()
    assert restore("q", tmp_path) == ["mysql"]
    made, filled = docker.told
    assert "--label=com.docker.compose.project=q --label=com.docker.compose.volume=mysql q_mysql" in made
    assert filled.endswith("-xzf /backup/mysql.tar.gz")


@pytest.mark.parametrize("act", [backup, restore])
def test_nothing_is_touched_while_something_runs(act: object, docker: SimpleNamespace, tmp_path: Path) -> None:
    docker.running = ["p_mysql_1"]
    with pytest.raises(StartupError, match="p_mysql_1 is running"):
        act("p", tmp_path)  # type: ignore[operator]
    assert docker.told == []


def test_a_backup_is_never_overwritten(docker: SimpleNamespace, tmp_path: Path) -> None:
    backup("p", tmp_path)
    with pytest.raises(StartupError, match="already has a backup"):
        backup("p", tmp_path)


def test_a_volume_with_data_is_not_overwritten(docker: SimpleNamespace, tmp_path: Path) -> None:
    backup("p", tmp_path)
    with pytest.raises(StartupError, match="the volumes mysql exist"):
        restore("p", tmp_path)


def test_half_a_backup_is_none(docker: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "mysql.tar.gz").touch()
    with pytest.raises(StartupError, match="no complete backup"):
        restore("p", tmp_path)


def test_a_backup_without_volumes_is_refused(docker: SimpleNamespace, tmp_path: Path) -> None:
    docker.volumes = {}
    with pytest.raises(StartupError, match="no volumes of the project p"):
        backup("p", tmp_path)
