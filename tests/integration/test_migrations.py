"""Migrations of the fixed tables, from an empty or an older data store, by one or several processes."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, event, inspect, text

from dosel.db import migrations
from dosel.db.chain import CHAINED
from dosel.db.engine import transaction
from dosel.db.migrations import VERSION_TABLE, current, head, migrate
from dosel.db.tables import CHAIN, CHAIN_HEAD, METADATA
from dosel.errors import WarehouseError
from dosel.registry.ledger import PromotionLedger
from dosel.registry.ledger_verification import read_ledgers, verify
from dosel.usecases.penguins import PENGUINS
from dosel.warehouse.batches import BatchStore
from tests.raw_tables import raw_digest

pytestmark = [pytest.mark.storage, pytest.mark.usefixtures("real_migrations")]

HERE = Path(__file__).parent
EVIDENCE = ("kind", "to_run", "data_digest", "manifest_digest", "metrics_before", "metrics_after", "gate")
"""The columns of promotions that the first ledgers did not have."""

Rows = dict[str, list[tuple[Any, ...]]]


def fill(engine: Engine, without: Iterable[str] = ()) -> Rows:
    """Create the tables of a dosel from before migrations, without some columns or tables, and fill them."""
    with transaction(engine) as connection:
        for statement in (HERE / "before_migrations" / f"{engine.dialect.name}.sql").read_text().split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement.replace("%", "%%"))
        for name in without:
            table, _, column = name.partition(".")
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}" if column else f"DROP TABLE {table}"))
    return rows(engine)


def rows(engine: Engine) -> Rows:
    with transaction(engine) as connection:
        names = sorted(set(inspect(connection).get_table_names()) - {VERSION_TABLE})
        return {name: [tuple(r) for r in connection.execute(text(f"SELECT * FROM {name}"))] for name in names}


def assert_kept(engine: Engine, before: Rows) -> None:
    """Check that every row has its values and its entry in the chain.

    Later migrations add columns at the end, and tables without rows.
    """
    after = rows(engine)
    for name, found in before.items():
        assert [row[: len(old)] for row, old in zip(after[name], found, strict=True)] == found
    chain = {CHAIN.name, CHAIN_HEAD.name}
    assert not any(after[name] for name in after.keys() - before.keys() - chain)
    assert verify(read_ledgers(engine, ()), {}).problem == ""
    assert len(after[CHAIN.name]) == sum(len(after[name]) for name in CHAINED)


def assert_is_declared(engine: Engine) -> None:
    """Check with Alembic's comparison that the tables are those of the code."""
    with engine.connect() as connection:
        options = {"include_name": lambda name, kind, _: kind != "table" or name in METADATA.tables}
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), METADATA)
    assert differences == []


def test_an_empty_data_store_gets_the_declared_tables(engine: Engine) -> None:
    assert current(engine) is None
    migrate(engine)
    assert current(engine) == head()
    assert set(rows(engine)) == set(METADATA.tables)
    assert_is_declared(engine)


def test_a_data_store_from_before_migrations_keeps_every_row(engine: Engine) -> None:
    before = fill(engine)
    assert {name: len(found) for name, found in before.items() if "_" not in name} == {
        "batches": 1,
        "manifests": 1,
        "predictions": 2,
        "projections": 1,
        "promotions": 3,
        "writers": 1,
    }
    migrate(engine)
    assert_kept(engine, before)
    assert_is_declared(engine)


def test_rows_from_before_a_migration_can_be_read(engine: Engine) -> None:
    before = fill(engine)
    ledger = PromotionLedger(engine)
    assert ledger.history("modelo_covertype_vf") == []
    assert_kept(engine, before)
    ledger.sign_older(every=False)
    assert [(entry.sequence, entry.to_version) for entry in ledger.history("modelo_covertype_vf")] == [(1, 1), (2, 3)]
    assert ledger.manifest("modelo_covertype_vf", 1, "a" * 32) is not None
    store = BatchStore(engine, PENGUINS)
    store.audit()
    [record] = store.records()
    assert raw_digest(engine, PENGUINS, record.id) == record.digest
    assert len(store.clean()) == record.rows_clean == 2


def test_a_ledger_without_evidence_columns_gets_them_empty(engine: Engine) -> None:
    before = fill(engine, without=[f"promotions.{name}" for name in EVIDENCE])
    migrate(engine)
    after = rows(engine)
    assert_kept(engine, before)
    added = [entry[len(old) :] for entry, old in zip(after["promotions"], before["promotions"], strict=True)]
    assert all(len(entry) >= len(EVIDENCE) and set(entry) == {None} for entry in added)
    assert_is_declared(engine)


def test_missing_tables_are_created(engine: Engine) -> None:
    before = fill(engine, without=["predictions", "promotion_notes"])
    migrate(engine)
    assert_kept(engine, before)
    assert_is_declared(engine)


def test_a_current_data_store_costs_one_query(engine: Engine) -> None:
    migrate(engine)
    sent: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: sent.append(arguments[2]))
    migrate(engine)
    assert [statement for statement in sent if not statement.startswith("BEGIN")] == [
        f"SELECT version_num FROM {VERSION_TABLE}"
    ]


def test_opening_the_ledger_sends_no_statement(engine: Engine) -> None:
    PromotionLedger(engine)
    assert rows(engine) == {}


def test_taking_the_lock_first_creates_the_tables(engine: Engine) -> None:
    ledger = PromotionLedger(engine)
    with ledger.lock("m"):
        assert ledger.append("m", 1, "me", "why").sequence == 1


def test_tables_of_a_newer_version_are_not_changed(engine: Engine) -> None:
    migrate(engine)
    with transaction(engine) as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(WarehouseError, match=rf"revision 9999.*up to {head()}.*newer dosel"):
        migrate(engine)
    assert current(engine) == "9999"


def test_concurrent_processes_all_find_the_tables(engine: Engine, warehouse_url: str) -> None:
    before = fill(engine, without=[*(f"promotions.{name}" for name in EVIDENCE), "predictions"])
    command = [sys.executable, "-m", "tests.integration.migrate_store", warehouse_url, "race"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    racers = [subprocess.Popen(command, text=True, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        output, errors = racer.communicate(timeout=60)
        assert (output, errors, racer.returncode) == ("migrated\n", "", 0)
    assert_kept(engine, before)
    assert_is_declared(engine)


@pytest.mark.soak
@pytest.mark.parametrize("statements", [1, 4, 10, 15])
def test_a_killed_migration_is_finished_by_the_next_process(
    statements: int, engine: Engine, warehouse_url: str
) -> None:
    before = fill(engine, without=[*(f"promotions.{name}" for name in EVIDENCE), "predictions"])
    command = [sys.executable, "-m", "tests.integration.migrate_store", warehouse_url, str(statements)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (killed.stdout, killed.returncode) == ("", -9), killed.stderr
    assert current(engine) != head()
    migrate(engine)
    assert_kept(engine, before)
    assert_is_declared(engine)


def test_the_newest_migration_is_alembics_head() -> None:
    folder = Path(migrations.__file__).parent
    config = Config()
    config.set_main_option("script_location", str(folder))
    assert ScriptDirectory.from_config(config).get_heads() == [head()]
