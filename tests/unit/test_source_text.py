"""Rows as columns of text: the fast reader and the slow one agree."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dosel.rows.text import _read_as_lines, _taken_apart, as_text
from dosel.usecases import SURPLUS

COLUMNS = ("a", "b")

Rows = list[list[Any]]


def columns(rows: Rows) -> list[list[Any]]:
    table = as_text(rows, COLUMNS)
    assert table.column_names == [*COLUMNS, SURPLUS]
    assert {str(field.type) for field in table.schema} == {"string"}
    return [column.to_pylist() for column in table.columns]


@given(st.lists(st.lists(st.text(alphabet=st.characters(exclude_categories=())), min_size=2, max_size=2)))
def test_the_fast_and_the_slow_reader_agree(rows: Rows) -> None:
    fast = _read_as_lines(rows, COLUMNS)
    slow = _taken_apart(rows, COLUMNS)
    if fast is not None:
        assert fast.equals(slow.drop_columns([SURPLUS]))


@pytest.mark.parametrize(
    "value", ["1", "", " ", "NA", "null", '"', '"a"', "'", "\\", "\\N", ",", "é🌲", "x" * 2000], ids=repr
)
def test_plain_text_is_read_by_the_fast_reader(value: str) -> None:
    fast = _read_as_lines([["1", value], [value, "2"]], COLUMNS)
    assert fast is not None
    assert fast.to_pydict() == {"a": ["1", value], "b": [value, "2"]}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], [[], [], []]),
        ([["1"]], [["1"], [None], [None]]),
        ([[]], [[None], [None], [None]]),
        ([["1", "2", "3", None]], [["1"], ["2"], ['["3", null]']]),
        ([["1", "2"], ["3"], ["4", "5", "6"]], [["1", "3", "4"], ["2", None, "5"], [None, None, '["6"]']]),
        ([["1", "2", "3"], ["4"]], [["1", "4"], ["2", None], ['["3"]', None]]),
        ([[1, 2.5]], [["1"], ["2.5"], [None]]),
        ([[None, True]], [[None], ["True"], [None]]),
        ([[["x"], {"y": 1}]], [["['x']"], ["{'y': 1}"], [None]]),
        ([["a\tb", "c\nd"], ["e\rf", "g\0h"]], [["a\tb", "e\rf"], ["c\nd", "g\0h"], [None, None]]),
        ([["\ufeffa", "b"]], [["\ufeffa"], ["b"], [None]]),
        ([["\ud800", "b"]], [["\\ud800"], ["b"], [None]]),
        ([["x" * 3_000_000, "b"]], [["x" * 3_000_000], ["b"], [None]]),
    ],
    ids=[
        *("no rows", "short", "empty", "long", "of all widths", "widths that even out", "numbers", "null and bool"),
        *("nested", "what ends a value or a line", "a mark at the beginning", "half a pair", "longer than a block"),
    ],
)
def test_received_values_are_kept_as_text(rows: Rows, expected: list[list[Any]]) -> None:
    assert columns(rows) == expected


def test_a_table_of_one_column_keeps_its_empty_rows() -> None:
    assert as_text([["a"], [""], ["b"]], ("only",)).column("only").to_pylist() == ["a", "", "b"]
    assert as_text([[""]], ("only",)).equals(pa.table({"only": [""], SURPLUS: pa.array([None], pa.string())}))
