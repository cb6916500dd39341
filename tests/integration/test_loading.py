"""Bulk loading: exactly the sent rows are stored or none, and the server can read no other file."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import Connection, Engine, text

from dosel.db.engine import connect, transaction
from dosel.db.loading import Loader, _Sender
from dosel.db.tables import METADATA, tables_of
from dosel.errors import AccountingError, WarehouseError
from dosel.quality import check
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore
from dosel.warehouse.records import BatchRecord
from tests.integration.worlds import batch
from tests.ledgers import drop_triggers
from tests.raw_tables import raw_digest

pytestmark = pytest.mark.storage

Received = Callable[..., list[list[str]]]
Store = Callable[..., BatchRecord | None]
TABLES = tables_of(COVERTYPE)

ODD = [
    *("", " ", "\\", "\\N", "\\\\N", "N", "NULL", "null", "a\tb", "a\nb", "a\r\nb", "a\0b", "\t", "\n", "\\\t"),
    *("'", '"', "''", "`", "%", "%s", "%%", ":x", "?", ";", "--", "é", "🌲", "\u2028", "\ufeff", "x" * 70_000),
]


@pytest.fixture
def server(schema: str) -> Iterator[Engine]:
    """A data store with its tables on a server that allows LOAD DATA LOCAL."""
    engine = connect(schema)
    BatchStore(engine, COVERTYPE)
    yield engine
    engine.dispose()


@pytest.fixture
def refusing(server: Engine) -> Iterator[Engine]:
    """A data store on a server that refuses LOAD DATA LOCAL, as MySQL does by default."""
    _allow(server, 0)
    yield server
    _allow(server, 1)


def _allow(engine: Engine, value: int) -> None:
    with transaction(engine) as connection:
        connection.execute(text(f"SET GLOBAL local_infile = {value}"))


def put(engine: Engine, column: str, *values: Any) -> None:
    """Load rows into the clean table without checks: the example with other values in one column."""
    row = {**COVERTYPE.example, COVERTYPE.target.name: 3, "batch_id": 1}
    rows = [row | {"row_no": i, "row_key": i} | {column: value} for i, value in enumerate(values)]
    loader = Loader(engine)
    with loader.transaction() as connection:
        loader.put(connection, TABLES.clean, pa.Table.from_pylist(rows))


def count_rows(engine: Engine, table: str = "clean") -> int:
    with transaction(engine) as connection:
        return connection.scalar(text(f"SELECT COUNT(*) FROM covertype_{table}")) or 0


def test_text_is_stored_unchanged(store: Store, engine: Engine, received: Received) -> None:
    """The text is loaded in both formats: as plain lines, and with the values of a refused row."""
    sent: list[list[Any]] = [[value] * len(COVERTYPE.columns) for value in ODD]
    store([*received(1), *sent, [None, *ODD[:12]], [*ODD[:13], "\t\\", None]])
    with transaction(engine) as connection:
        found = [tuple(row)[2:15] for row in connection.execute(TABLES.raw.select().order_by(TABLES.raw.c.row_no))]
    assert found[1:-2] == [(value,) * 13 for value in ODD]
    assert found[-2] == (None, *ODD[:12])
    assert found[-1] == tuple(ODD[:13])


def test_the_digest_can_be_recomputed_from_the_raw_table(store: Store, engine: Engine, received: Received) -> None:
    batches = BatchStore(engine, COVERTYPE)
    odd: list[list[Any]] = [[value] * 13 for value in ODD]
    for number, sent in enumerate((received(5), [*odd, [None] * 13, [], ODD[:15]], []), 1):
        record = store(sent, number)
        assert record is not None
        assert raw_digest(engine, COVERTYPE, record.id) == record.digest
    with transaction(engine) as connection:
        connection.exec_driver_sql("UPDATE covertype_raw SET Slope = '7' WHERE batch_id = 1 AND row_no = 2")
    assert raw_digest(engine, COVERTYPE, 1) != batches.records()[0].digest


def test_numbers_are_stored_bit_for_bit(engine: Engine) -> None:
    from sqlalchemy import BigInteger, Column, Double, Table

    values = [0.1, 1 / 3, 1e-300, 1.7976931348623157e308, 5e-324, -0.5, 123456789.987654321, 2.0**53]
    table = Table(
        "numbers", METADATA, Column("id", BigInteger, primary_key=True, autoincrement=False), Column("value", Double)
    )
    try:
        loader = Loader(engine)
        with loader.transaction() as connection:
            table.create(connection)
            loader.put(connection, table, pa.table({"id": range(len(values)), "value": values}))
        with transaction(engine) as connection:
            assert [row.value for row in connection.execute(table.select().order_by(table.c.id))] == values
    finally:
        METADATA.remove(table)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("Slope", ["steep", 1], "Incorrect integer value: 'steep'"),
        ("Slope", [1, 10**12], "Out of range value"),
        ("Slope", [None, 1], "NULL"),
        ("Slope", ["17 degrees", 1], "truncated"),
        ("Soil_Type", ["C" * 65, "C7745"], "too long|truncated"),
        ("row_key", [5, 5], "2 rows were sent and 1 were stored .*Duplicate entry '5'"),
    ],
    ids=["text", "out of range", "null", "half a number", "too long", "duplicate"],
)
def test_a_row_that_the_database_would_change_rolls_the_load_back(
    column: str, values: list[Any], message: str, server: Engine
) -> None:
    """`LOAD DATA` alone would silently change or skip each of these rows."""
    before, other = count_rows(server), [0, 1] if column == "row_key" else ["C7745"] if column == "Soil_Type" else [1]
    with pytest.raises(WarehouseError, match=f"covertype_clean: .*{message}.*the whole load was rolled back"):
        put(server, column, *(str(v) if v is not None else None for v in values))
    assert count_rows(server) == before
    put(server, column, *other)
    assert count_rows(server) == len(other)


def test_a_batch_with_a_row_that_the_database_refuses_is_not_stored(server: Engine, received: Received) -> None:
    sent = received(5)
    checked = check(COVERTYPE, sent, "uci")
    checked.accepted.loc[3, "Soil_Type"] = "C" * 65
    with pytest.raises(WarehouseError, match="the whole load was rolled back"):
        BatchStore(server, COVERTYPE).store(batch(sent), checked.accepted, checked.refused)
    assert [count_rows(server, table) for table in ("raw", "clean", "quarantine")] == [0, 0, 0]
    assert BatchStore(server, COVERTYPE).records() == []


def test_other_connections_cannot_load_files(server: Engine, tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_text("1\n")
    with pytest.raises(WarehouseError), transaction(server) as connection:
        connection.exec_driver_sql(f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE covertype_raw (row_no)")


def test_the_loading_connection_sends_no_file(server: Engine, tmp_path: Path) -> None:
    """A MySQL server may request any file of the client: this one requests the named file."""
    secret = tmp_path / "secret"
    secret.write_text("1\t1\n")
    loader = Loader(server)

    def steal(connection: Connection) -> None:
        sender = connection.connection.driver_connection
        assert isinstance(sender, _Sender)
        with sender.holding(iter([memoryview(b"2\t2\n")])):
            connection.exec_driver_sql(f"LOAD DATA LOCAL INFILE '{secret}' INTO TABLE covertype_raw (batch_id, row_no)")

    with (
        pytest.raises(WarehouseError, match=r"asked for the client's file.*secret"),
        loader.transaction() as connection,
    ):
        steal(connection)
    assert count_rows(server, "raw") == 0


def test_rows_are_inserted_with_one_warning_when_loading_is_off(
    refusing: Engine, received: Received, caplog: pytest.LogCaptureFixture
) -> None:
    store, odd = BatchStore(refusing, COVERTYPE), [[value] * 13 for value in ODD]
    with caplog.at_level(logging.WARNING, "dosel"):
        for number in (1, 2):
            sent = [*received(20, seed=number), *odd]
            checked = check(COVERTYPE, sent, "uci")
            record = store.store(batch(sent, number), checked.accepted, checked.refused)
            assert record is not None
            assert raw_digest(refusing, COVERTYPE, record.id) == record.digest
    assert [record.message for record in caplog.records if "local_infile is off" in record.message] == [
        "local_infile is off on the data store's server: rows are inserted, which takes longer"
    ]
    refused = 2 * len(odd)
    assert [count_rows(refusing, table) for table in ("raw", "clean", "quarantine")] == [40 + refused, 40, refused]
    store.audit()


class TestAudit:
    def test_the_audit_accepts_stored_batches(self, store: Store, engine: Engine, received: Received) -> None:
        audited = BatchStore(engine, COVERTYPE)
        audited.audit()
        store([*received(5), ["bad"], *received(2)], number=1)
        store(received(3, seed=1), number=2)
        audited.audit()

    @pytest.mark.parametrize(
        ("tampering", "message"),
        [
            ("DELETE FROM covertype_raw WHERE row_no = 3", "batch 1 of group 6 .*raw 7, clean 5"),
            ("DELETE FROM covertype_clean WHERE row_no = 3", "raw 8, clean 4, quarantine 1"),
            ("DELETE FROM covertype_quarantine", "quarantine 0"),
            ("UPDATE batches SET rows_duplicate = 1", r"8 received = 5 clean \+ 1 refused \+ 1 "),
            ("UPDATE covertype_clean SET batch_id = 99 WHERE row_no = 3", "clean has 1 rows of batch id 99"),
            ("INSERT INTO covertype_raw (batch_id, row_no) VALUES (98, 1)", "raw has 1 rows of batch id 98"),
            ("DELETE FROM batches", "raw has 8 rows of batch id .*clean has 5 rows.*quarantine has 1 rows"),
        ],
    )
    def test_the_audit_names_the_batch_with_missing_rows(
        self, tampering: str, message: str, store: Store, engine: Engine, received: Received
    ) -> None:
        store([*received(5), ["bad"], *received(2)], number=1)
        with transaction(engine) as connection:
            drop_triggers(connection)
            connection.exec_driver_sql(tampering)
        with pytest.raises(AccountingError, match=message):
            BatchStore(engine, COVERTYPE).audit()

    def test_use_cases_are_audited_separately(self, store: Store, engine: Engine, received: Received) -> None:
        import dataclasses

        store(received(5))
        other = BatchStore(engine, dataclasses.replace(COVERTYPE, name="other"))
        other.audit()


def test_holds_finds_a_stored_batch_without_its_rows(store: Store, engine: Engine, received: Received) -> None:
    batches = BatchStore(engine, COVERTYPE)
    assert not batches.holds(batch([], 1))
    store(received(2), number=1)
    assert batches.holds(batch([], 1))
    assert not batches.holds(batch([], 2))
    assert not batches.holds(batch([], 1, epoch="e2"))
