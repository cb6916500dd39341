"""A declaration that differs from its tables: optional features are added, other changes are refused."""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import Engine, inspect, text

from dosel.db.comparison import compare_all
from dosel.db.engine import transaction
from dosel.errors import SchemaError
from dosel.quality import check
from dosel.rows.hashing import row_keys
from dosel.usecases import UseCase
from dosel.usecases.covertype import COVERTYPE
from dosel.usecases.penguins import PENGUINS
from dosel.warehouse.batches import BatchStore
from dosel.warehouse.records import BatchRecord
from tests.integration.changed import AGE, EXTENDED, NEST, with_features
from tests.integration.worlds import batch

BIRDS = [
    ["Biscoe", "45.5", "15.2", "211", "4700", "female", "Gentoo"],
    ["Torgersen", "39.1", "18.7", "181", "3750", "male", "Adelie"],
    ["Dream", "NA", "NA", "NA", "NA", "NA", "Adelie"],
]


def put(engine: Engine, use_case: UseCase, rows: Sequence[Sequence[Any]], number: int = 1) -> BatchRecord:
    checked = check(use_case, rows, "")
    record = BatchStore(engine, use_case).store(batch(rows, number), checked.accepted, checked.refused)
    assert record is not None
    return record


def columns(engine: Engine, table: str) -> list[str]:
    return [column["name"] for column in inspect(engine).get_columns(table)]


@pytest.fixture
def stored(engine: Engine) -> pd.DataFrame:
    """The clean rows of a batch, stored before the declaration was changed."""
    assert put(engine, PENGUINS, BIRDS).parts == (2, 1, 0)
    return BatchStore(engine, PENGUINS).clean()


@pytest.mark.storage
def test_an_added_optional_feature_adds_its_column(engine: Engine, stored: pd.DataFrame) -> None:
    clean = BatchStore(engine, EXTENDED).clean()
    pd.testing.assert_frame_equal(clean[stored.columns].drop(columns="row_key"), stored.drop(columns="row_key"))
    assert clean["age"].isna().all()
    assert clean["nest"].isna().all()
    assert columns(engine, "penguins_raw")[-2:] == columns(engine, "penguins_clean")[-2:] == ["age", "nest"]
    BatchStore(engine, EXTENDED).audit()


def test_repeated_rows_are_duplicates_after_a_feature_was_added(engine: Engine, stored: pd.DataFrame) -> None:
    clean = BatchStore(engine, EXTENDED).clean()
    assert clean["row_key"].tolist() == row_keys(EXTENDED, clean).tolist() != stored["row_key"].tolist()
    longer = [[*bird[:-1], *new, bird[-1]] for bird, new in zip(BIRDS, [("", ""), ("7", "ice"), ("", "")], strict=True)]
    assert put(engine, EXTENDED, longer, 2).parts == (1, 1, 1)
    BatchStore(engine, EXTENDED).audit()


def test_opening_the_same_declaration_again_changes_nothing(engine: Engine, stored: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(BatchStore(engine, PENGUINS).clean(), stored)
    first = BatchStore(engine, EXTENDED).clean()
    pd.testing.assert_frame_equal(BatchStore(engine, EXTENDED).clean(), first)


@pytest.mark.parametrize("added", [("penguins_raw", "age"), ("penguins_raw", "nest"), ("penguins_clean", "age")])
def test_an_interrupted_addition_of_columns_is_finished(
    added: tuple[str, str], engine: Engine, stored: pd.DataFrame
) -> None:
    table, column = added
    with transaction(engine) as connection:
        connection.execute(text(f"ALTER TABLE {table} ADD COLUMN {column} INTEGER"))
    clean = BatchStore(engine, EXTENDED).clean()
    assert clean["row_key"].tolist() == row_keys(EXTENDED, clean).tolist()
    assert set(EXTENDED.columns) <= set(columns(engine, "penguins_raw"))


@pytest.mark.soak
def test_concurrent_processes_add_the_columns_once(engine: Engine, stored: pd.DataFrame, warehouse_url: str) -> None:
    command = [sys.executable, "-m", "tests.integration.changed", warehouse_url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    racers = [subprocess.Popen(command, text=True, **pipes) for _ in range(3)]  # type: ignore[call-overload]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        output, errors = racer.communicate(timeout=60)
        assert (output, errors, racer.returncode) == ("opened\n", "", 0)
    assert len(BatchStore(engine, EXTENDED).clean()) == len(stored)


ISLAND, _, *REST = PENGUINS.features
BILL = PENGUINS.numbers[0]

CHANGES = {
    "gone": (with_features(ISLAND, *REST), "bill_length_mm: the clean table has it, the declaration has not"),
    "required": (
        with_features(*PENGUINS.features, replace(AGE, optional=False)),
        "age: the declaration requires it, and the stored rows have no such column",
    ),
    "type": (
        with_features(ISLAND, replace(BILL, integer=True), *REST),
        "bill_length_mm: the clean table has numbers with decimals, the declaration whole numbers",
    ),
    "kind": (
        with_features(ISLAND, replace(NEST, name="bill_length_mm", optional=False), *REST),
        "bill_length_mm: the clean table has numbers with decimals, the declaration text",
    ),
    "optional": (
        with_features(ISLAND, replace(BILL, optional=True), *REST),
        "bill_length_mm: required in the clean table, optional in the declaration",
    ),
    "target": (
        replace(PENGUINS, target=replace(PENGUINS.target, name="kind")),
        "kind: the declaration requires it, and the stored rows have no such column; species: the clean table has it",
    ),
    "gone and added": (with_features(ISLAND, *REST, AGE), "bill_length_mm: the clean table has it"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_other_change_is_refused_with_the_column_and_the_remedies(
    change: str, engine: Engine, stored: pd.DataFrame, warehouse_url: str
) -> None:
    use_case, message = CHANGES[change]
    choices = r"Restore the declaration, or run `dosel reset --drop penguins`"
    with pytest.raises(SchemaError, match=rf"the tables of penguins do not fit.*{re.escape(message)}.*{choices}"):
        BatchStore(engine, use_case)
    pd.testing.assert_frame_equal(BatchStore(engine, PENGUINS).clean(), stored)
    [comparison] = compare_all(warehouse_url, [use_case])
    assert message in str(comparison)


def test_an_optional_feature_cannot_become_required(engine: Engine) -> None:
    put(engine, EXTENDED, [[*bird[:-1], "", "", bird[-1]] for bird in BIRDS])
    required = with_features(*PENGUINS.features, AGE, replace(NEST, optional=False))
    with pytest.raises(SchemaError, match="nest: optional in the clean table, required in the declaration"):
        BatchStore(engine, required)


def test_a_comparison_changes_no_table_and_creates_no_file(
    engine: Engine, warehouse_url: str, tmp_path: Any, stored: pd.DataFrame
) -> None:
    [comparison] = compare_all(warehouse_url, [EXTENDED])
    assert (comparison.differences, comparison.added_names) == ((), ["age", "nest"])
    assert "age" not in columns(engine, "penguins_clean")
    assert compare_all(f"sqlite:///{tmp_path / 'none.db'}", [PENGUINS]) == []
    assert not (tmp_path / "none.db").exists()


def test_created_tables_do_not_differ_from_their_declaration(engine: Engine, warehouse_url: str) -> None:
    BatchStore(engine, COVERTYPE)
    BatchStore(engine, EXTENDED)
    for comparison in compare_all(warehouse_url, [COVERTYPE, EXTENDED]):
        assert (comparison.differences, dict(comparison.added)) == ((), {})
