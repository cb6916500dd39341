"""The queue of the prediction log: entries that cannot be stored, retries and missing values."""

from collections.abc import Sequence

import pytest

from app.serving import write_queue
from app.serving.answer_writer import records
from app.serving.prediction_log import LogEntry, PredictionLog
from dosel.errors import WarehouseError
from dosel.usecases.covertype import COVERTYPE

SECRET = 1234.5
ANSWER = b'{"prediction":2,"label":"x","probabilities":{"x":1.0}}'


def entry(name: str) -> LogEntry:
    numbers = [SECRET] * len(COVERTYPE.numbers)
    return LogEntry(name, None, 1.0, COVERTYPE.name, "vf", 1, numbers, [0, -1], ANSWER)


class Store:
    """A store that refuses every chunk with a bad row, as a database refuses a value that is too long."""

    def __init__(self, bad: set[str]) -> None:
        self.bad, self.kept, self.is_away = bad, list[str](), False

    def write(self, entries: Sequence[LogEntry]) -> None:
        if self.is_away:
            raise WarehouseError("the data store cannot be reached")
        if any(entry.request_id in self.bad for entry in entries):
            raise ValueError(f"too long: {entries}")
        self.kept += [entry.request_id for entry in entries]


def log_of(store: Store, *names: str) -> PredictionLog:
    log = PredictionLog(100, store.write)
    for name in names:
        log.offer(entry(name))
    return log


@pytest.mark.parametrize("chunk", [3, 100])
def test_a_row_that_cannot_be_stored_is_dropped_alone(
    chunk: int, monkeypatch: pytest.MonkeyPatch, server_log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(write_queue, "CHUNK", chunk)
    names = [f"r-{i}" for i in range(10)]
    store = Store({"r-0", "r-4", "r-9"})
    log = log_of(store, *names)
    assert log.flush()
    assert store.kept == [name for name in names if name not in store.bad]
    assert (log.stored, log.dropped, log.waiting) == (7, 3, 0)
    assert all(name in server_log.text for name in store.bad)
    assert str(SECRET) not in server_log.text


def test_rows_wait_while_the_data_store_is_down(server_log: pytest.LogCaptureFixture) -> None:
    store = Store({"r-1"})
    log = log_of(store, "r-0", "r-1", "r-2")
    store.is_away = True
    assert not log.flush()
    assert (log.waiting, log.dropped) == (3, 0)
    store.is_away = False
    assert log.flush()
    assert store.kept == ["r-0", "r-2"]


def test_flushing_ends_although_rows_keep_coming() -> None:
    """Feedback waits for it, and one client's bulk requests can bring rows as fast as they are written."""
    kept: list[str] = []

    def write(entries: Sequence[LogEntry]) -> None:
        kept.extend(each.request_id for each in entries)
        for _ in entries:
            log.offer(entry("later"))

    log = PredictionLog(100, write)
    log.offer(entry("r-0"))
    log.offer(entry("r-1"))
    assert log.flush()
    assert kept == ["r-0", "r-1"]
    assert log.waiting == 2


def test_an_entry_with_a_share_is_dropped_once_that_part_of_the_queue_is_full() -> None:
    log = PredictionLog(100, lambda _: None)
    for number in range(50):
        log.offer(entry(f"bulk-{number}"), share=0.2)
    assert (log.waiting, log.dropped) == (20, 30)
    for number in range(90):
        log.offer(entry(f"single-{number}"))
    assert (log.waiting, log.dropped) == (100, 40)


def test_a_missing_value_is_stored_as_null() -> None:
    numbers = [float("nan"), *[1.0] * (len(COVERTYPE.numbers) - 1)]
    [record] = records({COVERTYPE.name: COVERTYPE}, [entry("r")._replace(numbers=numbers)])
    assert f'"{COVERTYPE.numbers[0].name}":null' in record.features
    assert f'"{COVERTYPE.categories[1].name}":null' in record.features
