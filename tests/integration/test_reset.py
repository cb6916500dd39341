"""`dosel reset`: a use case's rows and batches are gone, others' and the record of Production stay."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, insert, select
from typer.testing import CliRunner

from dosel.cli import cli
from dosel.db.tables import BATCHES
from dosel.registry.ledger import PromotionLedger
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore
from dosel.warehouse.records import BatchRecord
from dosel.warehouse.reset import clear, held

pytestmark = pytest.mark.storage

Store = Callable[..., BatchRecord | None]
Received = Callable[..., list[list[str]]]


def test_rows_and_batches_are_removed_and_the_same_batch_can_come_again(
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


def test_what_is_not_its_own_stays(engine: Engine, store: Store, received: Received) -> None:
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


@pytest.mark.parametrize(("arguments", "answer", "left"), [((), "n\n", 1), ((), "y\n", 0), (("--yes",), "", 0)])
def test_the_command_asks_first(
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
