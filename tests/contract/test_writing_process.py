"""The process that writes the prediction log: what it stores, and what happens when it or its parent dies."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest
from sqlalchemy import select

from app.serving import child_process
from app.serving.prediction_log import LogEntry
from app.serving.write_queue import NotStored
from app.serving.writing_process import WritingProcess
from dosel.db.engine import connect, reading
from dosel.db.tables import ANSWERS, SHADOW_ANSWERS
from dosel.errors import WarehouseError
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.shadow_answer import ShadowAnswer

ANSWER = b'{"prediction":2,"label":"Lodgepole Pine","probabilities":{"Lodgepole Pine":1.0}}'
IN_SHADOW = ShadowAnswer(COVERTYPE.model_name, 2, "r-1", 1, 1.0, '{"Lodgepole Pine":1.0}', 2, 0.5, None)


def entry(name: str, answer: bytes = ANSWER) -> LogEntry:
    numbers = (float("nan"), *[1.0] * (len(COVERTYPE.numbers) - 1))
    codes = [0] * len(COVERTYPE.categories)
    return LogEntry(name, None, 1.0, COVERTYPE.name, COVERTYPE.model_name, 1, numbers, codes, answer)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'warehouse.db'}"


@pytest.fixture
def writer(url: str) -> Iterator[WritingProcess]:
    writer = WritingProcess(url, 10_000_000, [COVERTYPE])
    yield writer
    writer.close()


def written(url: str) -> list[str]:
    with reading(connect(url)) as connection:
        return list(connection.scalars(select(ANSWERS.c.request_id).order_by(ANSWERS.c.id)))


def child() -> psutil.Process:
    [process] = [p for p in psutil.Process().children() if "app.serving.writing_process" in p.cmdline()]
    return process


def test_answers_are_written_once_also_after_a_kill(writer: WritingProcess, url: str) -> None:
    writer.answers([entry("r-1"), entry("r-2")])
    writer.in_shadow([msgspec.msgpack.encode([IN_SHADOW])])
    with reading(connect(url)) as connection:
        [shadow] = connection.execute(select(SHADOW_ANSWERS)).mappings()
    assert (shadow["request_id"], shadow["number"], shadow["champion_latency"]) == ("r-1", 2, None)

    first = child()
    first.kill()
    first.wait()
    with pytest.raises(WarehouseError, match="another one is started"):
        writer.answers([entry("r-3")])
    # The caller cannot know whether r-2 was stored before the kill, and writes it again.
    writer.answers([entry("r-2"), entry("r-3")])
    assert written(url) == ["r-1", "r-2", "r-3"]


def test_an_answer_that_cannot_be_stored_is_refused_without_its_values(writer: WritingProcess, url: str) -> None:
    with pytest.raises(NotStored) as refused:
        writer.answers([entry("r-1"), entry("r-2", b'{"prediction":"secret"}')])
    assert "secret" not in str(refused.value)
    writer.answers([entry("r-1")])
    assert written(url) == ["r-1"]


def test_rows_are_not_written_under_a_declaration_that_changed(url: str) -> None:
    first, *rest = COVERTYPE.numbers
    changed = replace(COVERTYPE, features=(replace(first, unit="feet"), *rest, *COVERTYPE.categories))
    writer = WritingProcess(url, 10_000_000, [changed])
    for _ in range(2):
        with pytest.raises(WarehouseError, match="declaration of covertype has changed"):
            writer.answers([entry("r-1")])
    writer.close()


def test_closing_does_not_wait_for_a_call_that_hangs(writer: WritingProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    writer.answers([entry("r-1")])
    monkeypatch.setattr(child_process, "STOP_SECONDS", 0.2)
    process = child()
    process.suspend()
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(writer.answers, [entry("r-2")])
        while not writer._process._lock.locked() and not hanging.done():
            pass
        writer.close()
        with pytest.raises(WarehouseError):
            hanging.result(20)
    assert not process.is_running()


@pytest.mark.parametrize("signal", ["terminate", "kill"])
def test_the_process_ends_with_its_parent_and_not_before(signal: str, url: str) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from tests.contract.test_writing_process import *\n"
            f"writer = WritingProcess({url!r}, 10_000_000, [COVERTYPE])\n"
            "writer.answers([entry('r-1')])\n"
            "print(child().pid, flush=True)\n"
            "sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    process = psutil.Process(int(parent.stdout.readline()))
    process.terminate()
    getattr(parent, signal)()
    parent.communicate()
    process.wait(20)
    assert written(url) == ["r-1"]
