"""`dosel reset` removes a use case's rows and batches, and keeps the ledger and other use cases."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import Engine, insert, select
from typer.testing import CliRunner

from dosel.cli import cli
from dosel.db.tables import BATCHES
from dosel.errors import SchemaError
from dosel.registry.ledger import PromotionLedger
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore
from dosel.warehouse.records import BatchRecord
from dosel.warehouse.reset import clear, drop, has_tables, held

pytestmark = pytest.mark.storage

Store = Callable[..., BatchRecord | None]
Received = Callable[..., list[list[str]]]


def test_reset_removes_rows_and_batches_and_a_batch_can_be_stored_again(
    engine: Engine, store: Store, received: Received
) -> None:
    assert held(engine, COVERTYPE) == {}
    store([*received(20), ["?"] * len(COVERTYPE.columns)])
    tables = {f"{COVERTYPE.name}_raw": 21, f"{COVERTYPE.name}_clean": 20, f"{COVERTYPE.name}_quarantine": 1}
    assert held(engine, COVERTYPE) == clear(engine, COVERTYPE) == tables | {"batches": 1}
    assert held(engine, COVERTYPE) == {}
    again = store(received(20))
    assert again is not None
    assert again.rows_clean == 20


def test_reset_keeps_the_rows_of_other_use_cases_and_the_ledger(
    engine: Engine, store: Store, received: Received
) -> None:
    store(received(5))
    PromotionLedger(engine).append(COVERTYPE.model_name, 1, "a test", "first")
    with engine.begin() as connection:
        row = dict(connection.execute(select(BATCHES)).mappings().one())
        del row["id"]
        connection.execute(insert(BATCHES).values(row | {"use_case": "another"}))
    clear(engine, COVERTYPE)
    assert BatchStore(engine, COVERTYPE).records() == []
    assert len(PromotionLedger(engine).history(COVERTYPE.model_name)) == 1
    with engine.connect() as connection:
        assert connection.scalars(select(BATCHES.c.use_case)).all() == ["another"]


def test_dropped_tables_are_created_again_for_another_declaration(
    engine: Engine, store: Store, received: Received
) -> None:
    store(received(5))
    PromotionLedger(engine).append(COVERTYPE.model_name, 1, "a test", "first")
    with engine.begin() as connection:
        row = dict(connection.execute(select(BATCHES)).mappings().one())
        del row["id"]
        connection.execute(insert(BATCHES).values(row | {"use_case": "another"}))
    fewer = replace(COVERTYPE, features=COVERTYPE.features[1:])
    with pytest.raises(SchemaError):
        BatchStore(engine, fewer)
    assert drop(engine, fewer)[f"{COVERTYPE.name}_raw"] == 5
    assert not has_tables(engine, fewer)
    assert BatchStore(engine, fewer).records() == []
    assert len(PromotionLedger(engine).history(COVERTYPE.model_name)) == 1
    with engine.connect() as connection:
        assert connection.scalars(select(BATCHES.c.use_case)).all() == ["another"]


def test_an_interrupted_drop_can_be_repeated(engine: Engine, store: Store, received: Received) -> None:
    store(received(5))
    with engine.begin() as connection:
        for suffix in ("raw", "clean"):
            connection.exec_driver_sql(f"DROP TABLE {COVERTYPE.name}_{suffix}")
    assert held(engine, COVERTYPE) == drop(engine, COVERTYPE) == {"batches": 1}
    assert held(engine, COVERTYPE) == {}
    assert drop(engine, COVERTYPE) == {}


@pytest.mark.parametrize(("answer", "left"), [("n\n", True), ("y\n", False)])
def test_reset_with_drop_asks_for_confirmation(
    answer: str, left: bool, warehouse_url: str, engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    BatchStore(engine, COVERTYPE)
    monkeypatch.setenv("DOSEL_WAREHOUSE_URL", warehouse_url)
    done = CliRunner().invoke(cli, ["reset", "--drop", COVERTYPE.name], input=answer)
    assert f"remove no rows and drop the tables of {COVERTYPE.name}?" in done.output
    assert has_tables(engine, COVERTYPE) == left


@pytest.mark.parametrize(("arguments", "answer", "left"), [((), "n\n", 1), ((), "y\n", 0), (("--yes",), "", 0)])
def test_reset_asks_for_confirmation(
    arguments: tuple[str, ...],
    answer: str,
    left: int,
    warehouse_url: str,
    engine: Engine,
    store: Store,
    received: Received,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store(received(5))
    monkeypatch.setenv("DOSEL_WAREHOUSE_URL", warehouse_url)
    done = CliRunner().invoke(cli, ["reset", COVERTYPE.name, *arguments], input=answer)
    assert done.exit_code == left
    assert ("remove 5 rows of" in done.output) == (not arguments)
    assert len(BatchStore(engine, COVERTYPE).records()) == left
