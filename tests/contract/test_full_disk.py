"""A full disk under each store: no partial writes, predictions continue, and writing resumes once there is space."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from app.main import create_app
from dosel.db.engine import connect
from dosel.errors import WarehouseError
from dosel.quality import check
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore
from tests.contract.conftest import Installation
from tests.contract.test_api import running, serving, version_of, wait_until
from tests.integration.stores import copy_database
from tests.integration.worlds import batch

DISK_MB = 8


class Disk:
    """A small file system that a test can fill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with self._ballast.open("wb", buffering=0) as file:
            for size in (65_536, 4_096, 1):
                with suppress(OSError):
                    while file.write(bytes(size)):
                        """Until the disk takes no more blocks of this size."""

    def make_room(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    mounted = shutil.which("mount") and subprocess.run(command, capture_output=True, text=True, check=False)
    if not mounted or mounted.returncode:
        reason = f"a small file system cannot be mounted: {mounted.stderr.strip() if mounted else 'there is no mount'}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_batch_is_stored_completely_or_not_at_all_on_a_full_disk(
    disk: Disk, received: Callable[..., list[list[str]]]
) -> None:
    engine = connect(f"sqlite:///{disk.folder / 'warehouse.db'}")
    store, rows = BatchStore(engine, COVERTYPE), received(2_000)
    checked = check(COVERTYPE, rows, "uci")
    disk.fill()
    with pytest.raises(WarehouseError, match="is the disk full"):
        store.store(batch(rows), checked.accepted, checked.refused)
    assert store.records() == []
    disk.make_room()
    record = store.store(batch(rows), checked.accepted, checked.refused)
    assert record is not None
    assert record.rows_clean == len(store.clean()) == 2_000
    store.audit()


def test_predictions_continue_while_their_log_waits_for_disk_space(
    disk: Disk, install: Callable[..., Installation]
) -> None:
    here = install(in_production=True)
    warehouse = disk.folder / "warehouse.db"
    copy_database(here.settings.home / "warehouse.db", warehouse)
    app = create_app(here.settings.model_copy(update={"warehouse_url": f"sqlite:///{warehouse}"}))
    with running(app) as client:
        wait_until(lambda: version_of(client) == 1)
        log = app.state.record
        wait_until(lambda: log.waiting == 0)
        stored = log.stored
        disk.fill()
        assert all(version_of(client) == 1 for _ in range(200))
        wait_until(lambda: log.waiting == 200)
        disk.make_room()
        wait_until(lambda: log.waiting == 0)
        assert (log.stored - stored, log.dropped) == (200, 0)


def test_a_version_that_cannot_be_cached_answers_from_memory(disk: Disk, install: Callable[..., Installation]) -> None:
    here = install(in_production=True)
    disk.fill()
    with serving(here.settings.model_copy(update={"home": disk.folder})) as client:
        wait_until(lambda: version_of(client) == 1)
        assert client.get("/readyz").is_success
