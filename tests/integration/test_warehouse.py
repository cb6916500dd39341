"""Batches in the data store: each is stored once and completely, also under races and kills."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from dosel.db.engine import connect, transaction
from dosel.db.tables import BATCHES, tables_of
from dosel.errors import SettingsError, WarehouseError
from dosel.quality import check
from dosel.rows import hashing
from dosel.sources.base import Batch
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore
from dosel.warehouse.records import BatchRecord

pytestmark = pytest.mark.storage

Received = Callable[..., list[list[str]]]
Store = Callable[..., BatchRecord | None]
TABLES = tables_of(COVERTYPE)
CHILD = Path(__file__).with_name("store_batch.py")


def counts(engine: Engine) -> dict[str, int]:
    """The number of rows in each table."""
    named = {"batches": BATCHES, "raw": TABLES.raw, "clean": TABLES.clean, "quarantine": TABLES.quarantine}
    with transaction(engine) as connection:
        return {name: connection.scalar(select(func.count()).select_from(t)) or 0 for name, t in named.items()}


def contents(engine: Engine) -> list[list[tuple[Any, ...]]]:
    """All rows of all tables."""
    with transaction(engine) as connection:
        tables = (BATCHES, TABLES.raw, TABLES.clean, TABLES.quarantine)
        return [[tuple(row) for row in connection.execute(select(t).order_by(*t.primary_key))] for t in tables]


def test_a_batch_is_stored_with_its_line_in_the_ledger(store: Store, engine: Engine, received: Received) -> None:
    before = datetime.now(UTC)
    sent = received(20)
    record = store(sent, number=3, epoch="e7")
    assert record is not None
    assert (record.stream, record.epoch, record.number) == ("group 6", "e7", 3)
    assert record.source == "http://data.test/data"
    assert (record.rows_received, record.rows_clean, record.rows_refused, record.rows_duplicate) == (20, 20, 0, 0)
    assert before - timedelta(seconds=1) <= record.received_at <= datetime.now(UTC) + timedelta(seconds=1)
    as_kept = "".join("\t".join([*row, "\\N"]) + "\n" for row in sent)
    assert record.digest == hashlib.sha256(as_kept.encode()).hexdigest()
    assert BatchStore(engine, COVERTYPE).records() == [record]
    assert counts(engine) == {"batches": 1, "raw": 20, "clean": 20, "quarantine": 0}


def test_a_stored_batch_with_other_rows_changes_nothing(store: Store, engine: Engine, received: Received) -> None:
    """Within its window, the data API sends another sample of the same slice."""
    store(received(20, seed=1))
    before = contents(engine)
    assert store(received(30, seed=2)) is None
    assert contents(engine) == before


def test_the_clean_rows_of_one_batch_are_read(store: Store, engine: Engine, received: Received) -> None:
    store(received(20, seed=1), number=1)
    second = store(received(30, seed=2), number=2)
    assert second is not None
    rows = BatchStore(engine, COVERTYPE).clean(second.id)
    assert (len(rows), set(rows["batch_id"])) == (30, {second.id})


def test_the_raw_table_keeps_each_row_as_received(store: Store, engine: Engine, received: Received) -> None:
    good = received(1)[0]
    numbers = [float(v) for v in good[:10]] + [*good[10:12], int(good[12])]
    store([good, [*good, "more", None], good[:2], [], numbers])
    with transaction(engine) as connection:
        raw = [tuple(row)[2:] for row in connection.execute(select(TABLES.raw).order_by(TABLES.raw.c.row_no))]
    assert raw[0] == (*good, None)
    assert raw[1][:-1] == tuple(good)
    assert json.loads(raw[1][-1]) == ["more", None]
    assert raw[2] == (*good[:2], *[None] * 12)
    assert raw[3] == (None,) * 14
    assert raw[4] == (*map(str, numbers), None)


def test_every_row_is_clean_refused_or_a_duplicate(store: Store, engine: Engine, received: Received) -> None:
    first, second = received(30, seed=1), received(30, seed=2)
    bad = [["x"] * 13, [], [None] * 13]
    for number, sent in enumerate(([*first, *bad, *first[:4]], [*second, first[0], second[0], second[0], *bad]), 1):
        store(sent, number)
    one, two = BatchStore(engine, COVERTYPE).records()
    assert (one.rows_clean, one.rows_refused, one.rows_duplicate) == (30, 3, 4)
    assert (two.rows_clean, two.rows_refused, two.rows_duplicate) == (30, 3, 3)
    for record in (one, two):
        assert record.rows_received == record.rows_clean + record.rows_refused + record.rows_duplicate
    assert counts(engine) == {"batches": 2, "raw": 73, "clean": 60, "quarantine": 6}


def test_the_clean_table_keeps_the_first_copy_of_a_row(store: Store, engine: Engine, received: Received) -> None:
    a, b, c = received(3)
    store([a, a, b], number=1)
    store([c, b, a], number=2)
    with transaction(engine) as connection:
        table = TABLES.clean
        places = connection.execute(select(table.c.batch_id, table.c.row_no)).all()
    one, two = (record.id for record in BatchStore(engine, COVERTYPE).records())
    assert sorted(map(tuple, places)) == [(one, 0), (one, 2), (two, 0)]


def test_rows_that_differ_in_class_only_are_no_duplicates(store: Store, received: Received) -> None:
    row = received(1)[0]
    record = store([[*row[:-1], "1"], [*row[:-1], "2"]])
    assert record is not None
    assert record.rows_duplicate == 0


def test_duplicates_are_found_among_more_rows_than_one_query_has_keys(store: Store, received: Received) -> None:
    sent = received(1300)
    store(sent, number=1)
    record = store([*received(10, seed=9), *sent], number=2)
    assert record is not None
    assert (record.rows_clean, record.rows_duplicate) == (10, 1300)


def test_the_quarantine_has_the_reason_of_each_refused_row(store: Store, engine: Engine, received: Received) -> None:
    good = received(1)[0]
    store([good, [*good[:-1], "9"], ["short"]])
    with transaction(engine) as connection:
        table = TABLES.quarantine
        found = connection.execute(select(table.c.row_no, table.c.reason))
        reasons = {row.row_no: row.reason for row in found}
    assert set(reasons) == {1, 2}
    assert reasons[1].startswith("Cover_Type: expected one of 1 (Spruce/Fir), ")
    assert reasons[2] == "expected 13 values, got 1"


def test_clean_rows_are_read_unchanged(store: Store, engine: Engine, received: Received) -> None:
    sent = received(50)
    store(sent[:30], number=1)
    store(sent[30:], number=2)
    clean = BatchStore(engine, COVERTYPE).clean()
    assert tuple(clean.columns) == ("batch_id", "row_key", *COVERTYPE.columns)
    checked = check(COVERTYPE, sent, "uci").accepted
    assert [str(clean[n.name].dtype) for n in COVERTYPE.numbers] == ["float64"] * 10
    assert str(clean["Cover_Type"].dtype) == str(clean["row_key"].dtype) == "int64"
    assert clean[list(COVERTYPE.columns)].to_dict("records") == checked.to_dict("records")
    assert (clean["row_key"] == hashing.row_keys(COVERTYPE, clean)).all()
    assert (hashing.is_held_out(COVERTYPE, clean) == hashing.is_held_out(COVERTYPE, checked)).all()


def test_an_empty_warehouse_has_an_empty_clean_table(engine: Engine) -> None:
    store = BatchStore(engine, COVERTYPE)
    assert store.clean().empty
    assert store.records() == []


def test_a_batch_without_a_valid_row_is_stored(store: Store, engine: Engine) -> None:
    record = store([["x"] * 13])
    assert record is not None
    assert (record.rows_clean, record.rows_refused) == (0, 1)


def numbering(store: Store, *batches: tuple[str, int]) -> list[tuple[str, int] | None]:
    """The stored epoch and number of batches sent with these ones; None for a batch that is not stored."""
    found: list[tuple[str, int] | None] = []
    for i, (epoch, number) in enumerate(batches):
        row = [str(v) for v in (COVERTYPE.example | {"Elevation": 2000 + i}).values()]
        record = store([[*row, "3"]], number, epoch)
        found.append((record.epoch, record.number) if record else None)
    return found


def test_the_epoch_of_the_source_is_stored(store: Store) -> None:
    sent = [("e1", 1), ("e1", 2), ("e1", 1), ("e2", 1), ("e2", 2), ("e1", 3)]
    assert numbering(store, *sent) == [("e1", 1), ("e1", 2), None, ("e2", 1), ("e2", 2), ("e1", 3)]


def test_without_an_epoch_a_lower_number_starts_a_new_epoch(store: Store) -> None:
    sent = [("", 1), ("", 2), ("", 2), ("", 9), ("", 1), ("", 2), ("", 2), ("", 1)]
    expected = [("1", 1), ("1", 2), None, ("1", 9), ("2", 1), ("2", 2), None, ("3", 1)]
    assert numbering(store, *sent) == expected


def test_streams_have_separate_numbers(engine: Engine, received: Received) -> None:
    checked = check(COVERTYPE, received(1), "uci")
    store = BatchStore(engine, COVERTYPE)
    for stream, number, epoch in (("group 1", 5, "1"), ("group 2", 1, "1"), ("group 1", 6, "1"), ("group 2", 2, "1")):
        record = store.store(Batch("x", stream, "", number, received(1)), checked.accepted, checked.refused)
        assert record is not None
        assert record.epoch == epoch


def test_each_use_case_has_its_own_ledger_and_tables(store: Store, engine: Engine, received: Received) -> None:
    import dataclasses

    store(received(3))
    other = BatchStore(engine, dataclasses.replace(COVERTYPE, name="other"))
    assert other.records() == []
    checked = check(COVERTYPE, received(3), "uci")
    record = other.store(Batch("x", "group 6", "e1", 1, received(3)), checked.accepted, checked.refused)
    assert record is not None
    assert record.rows_clean == 3


def test_a_failed_store_leaves_no_rows(store: Store, engine: Engine, received: Received) -> None:
    store(received(5, seed=1), number=1)
    before = contents(engine)
    checked = check(COVERTYPE, received(5, seed=2), "uci")
    no_reason: dict[int, Any] = {0: None}
    with pytest.raises(WarehouseError, match=r"batch 2 of group 6|the whole load was rolled back"):
        # The quarantine is written last, and its reason must not be null.
        BatchStore(engine, COVERTYPE).store(
            Batch("x", "group 6", "e1", 2, received(5, seed=2)), checked.accepted, no_reason
        )
    assert contents(engine) == before
    assert store(received(5, seed=2), number=2) is not None


def test_concurrent_threads_store_a_batch_once(engine: Engine, warehouse_url: str, received: Received) -> None:
    BatchStore(engine, COVERTYPE)
    together = Barrier(6)

    def one(seed: int) -> BatchRecord | None:
        sent = received(20, seed=seed)
        checked = check(COVERTYPE, sent, "uci")
        mine = connect(warehouse_url)
        store = BatchStore(mine, COVERTYPE)
        together.wait(10)
        try:
            return store.store(Batch("x", "group 6", "e1", 1, sent), checked.accepted, checked.refused)
        finally:
            mine.dispose()

    with ThreadPoolExecutor(6) as pool:
        stored = [record for record in pool.map(one, range(6)) if record]
    assert len(stored) == 1
    assert counts(engine) == {"batches": 1, "raw": 20, "clean": 20, "quarantine": 0}


def test_concurrent_overlapping_batches_keep_each_row_once(
    engine: Engine, warehouse_url: str, received: Received
) -> None:
    BatchStore(engine, COVERTYPE)
    shared = received(20)
    checked = check(COVERTYPE, shared, "uci")
    together = Barrier(4)

    def one(number: int) -> int:
        mine = connect(warehouse_url)
        store = BatchStore(mine, COVERTYPE)
        together.wait(10)
        try:
            record = store.store(Batch("x", "group 6", "e1", number, shared), checked.accepted, checked.refused)
        finally:
            mine.dispose()
        assert record is not None
        return record.rows_clean

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(one, range(1, 5))) == [0, 0, 0, 20]
    assert counts(engine)["clean"] == 20


def child(url: str, task: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(CHILD), url, task], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_concurrent_processes_store_a_batch_once(engine: Engine, warehouse_url: str) -> None:
    BatchStore(engine, COVERTYPE)
    children = [child(warehouse_url, "race") for _ in range(2)]
    for process in children:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in children:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    assert sorted(process.communicate(timeout=30)[0] for process in children) == ["stored\n", "there already\n"]
    assert counts(engine) == {"batches": 1, "raw": 50, "clean": 50, "quarantine": 0}


def test_a_process_killed_in_its_transaction_leaves_no_rows(engine: Engine, warehouse_url: str) -> None:
    with child(warehouse_url, "stop") as process:
        assert process.stdout
        # BatchStore commits its tables first; the next transaction is the batch.
        assert process.stdout.readline() == "open\n"
        process.kill()
    assert counts(engine) == {"batches": 0, "raw": 0, "clean": 0, "quarantine": 0}
    again = child(warehouse_url, "race")
    assert again.communicate("go\n", timeout=30)[0] == "ready\nstored\n"
    assert counts(engine) == {"batches": 1, "raw": 50, "clean": 50, "quarantine": 0}


@pytest.mark.parametrize(
    "url",
    ["mysql+pymysql://someone:hush@127.0.0.1:1/datadb", "mariadb://someone:hush@127.0.0.1:1/datadb"],
)
def test_an_unreachable_server_is_named_without_its_password(url: str) -> None:
    with pytest.raises(WarehouseError, match=r"someone:\*\*\*@127\.0\.0\.1:1/datadb failed.*is it running") as raised:
        BatchStore(connect(url), COVERTYPE)
    assert "hush" not in str(raised.value)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "a-folder").mkdir()
    with pytest.raises(WarehouseError, match="a-folder"):
        BatchStore(connect(f"sqlite:///{tmp_path / 'a-folder'}"), COVERTYPE)


@pytest.mark.parametrize("url", ["", "warehouse.db", "postgresql://somewhere/x", "oracle://x"])
def test_an_unsupported_warehouse_url_is_a_settings_error(url: str) -> None:
    with pytest.raises(SettingsError, match="DOSEL_WAREHOUSE_URL: "):
        connect(url)


def test_the_folder_of_a_database_file_is_created(tmp_path: Path, received: Received) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'new' / 'folder' / 'w.db'}")
    assert BatchStore(engine, COVERTYPE).records() == []
    engine.dispose()
