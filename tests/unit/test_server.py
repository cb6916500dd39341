"""Starting the API with several workers."""

import os
from pathlib import Path

import pytest

from app.http.worker_metrics import FOLDER, shared_folder
from app.server import FLAGS, workers

APP = "app.main:create_app"


@pytest.mark.parametrize(
    ("flags", "variable", "number"),
    [
        ([], None, 1),
        (["--port", "0"], None, 1),
        (["--workers", "3"], None, 3),
        (["--workers=3", "--port=0"], "2", 3),
        ([], "2", 2),
        (["--no-such-flag"], None, 1),
    ],
)
def test_uvicorn_starts_the_configured_number_of_workers(
    flags: list[str], variable: str | None, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    if variable:
        monkeypatch.setenv("WEB_CONCURRENCY", variable)
    assert workers([*FLAGS, APP, *flags]) == number


def test_several_workers_share_a_metrics_folder_and_a_single_worker_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, "/of/an/earlier/start")
    with shared_folder(1):
        assert FOLDER not in os.environ
    with shared_folder(2):
        folder = Path(os.environ[FOLDER])
        assert list(folder.iterdir()) == []
    assert not folder.exists()
    assert FOLDER not in os.environ
