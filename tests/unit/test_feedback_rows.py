"""Feedback rows: classes are read as ingest reads them, or by their labels."""

import json
import tracemalloc
from typing import Any

import pytest

from dosel.monitor.feedback_rows import MAX_ROWS, class_code, csv_rows, read_csv, read_json
from dosel.rows.validation import MAX_ERRORS, InvalidRows, UnreadableRows
from dosel.usecases import ALL, UseCase
from dosel.usecases.covertype import COVERTYPE
from dosel.usecases.employees import EMPLOYEES


@pytest.mark.parametrize("use_case", ALL, ids=lambda u: u.name)
def test_every_class_is_read_by_its_label(use_case: UseCase) -> None:
    target = use_case.target
    assert [class_code(target, label.upper()) for label in target.labels.values()] == list(target.labels)
    assert class_code(target, "no such class") is None


@pytest.mark.parametrize("use_case", [u for u in ALL if not u.target.bins], ids=lambda u: u.name)
def test_every_class_is_read_by_its_code(use_case: UseCase) -> None:
    codes = list(use_case.target.labels)
    assert [class_code(use_case.target, code) for code in codes] == codes


def test_a_numeric_target_is_read_as_the_source_sends_it_and_put_into_bins() -> None:
    target = EMPLOYEES.target
    assert target.bins is not None
    assert class_code(target, target.bins.minimum) == next(iter(target.labels))
    assert class_code(target, target.bins.maximum) == list(target.labels)[-1]
    assert class_code(target, target.bins.maximum + 1) is None


@pytest.mark.parametrize("rows", [[], [{"request_id": "r", "truth": 2}] * (MAX_ROWS + 1)], ids=["none", "one too many"])
def test_feedback_has_a_maximum_number_of_rows(rows: list[Any]) -> None:
    with pytest.raises(InvalidRows, match=f"{MAX_ROWS:,} rows"):
        read_json(COVERTYPE.target, json.dumps(rows).encode())


@pytest.mark.parametrize("request_id", ["", "two words", "\ud800", "x" * 65, "r\n", 7, None])
def test_what_is_no_request_id_is_refused(request_id: Any) -> None:
    with pytest.raises(InvalidRows, match="X-Dosel-Request-ID"):
        read_json(COVERTYPE.target, json.dumps([{"request_id": request_id, "truth": 2}]).encode())


def test_a_row_with_many_unknown_fields_is_refused_without_naming_them() -> None:
    """Each name takes time, and one body has place for 90,000."""
    row = {"request_id": "r", "truth": 2} | {f"f{i}": 1 for i in range(4_000)}
    with pytest.raises(InvalidRows) as refused:
        read_json(COVERTYPE.target, json.dumps([row]).encode())
    assert [error.got for error in refused.value.errors] == ["an object with 4002 fields"]
    with pytest.raises(UnreadableRows, match="longer than"):
        read_json(COVERTYPE.target, json.dumps([row | {f"more{i}": 1 for i in range(90_000)}]).encode())


def test_reading_stops_at_the_hundredth_invalid_row_and_lists_two_thousand_errors() -> None:
    rows = [{f"f{i}": 1 for i in range(19)}] * MAX_ROWS
    with pytest.raises(InvalidRows) as refused:
        read_json(COVERTYPE.target, json.dumps(rows).encode())
    assert len(refused.value.errors) == MAX_ERRORS
    assert {error.row for error in refused.value.errors} <= set(range(1, 101))


def test_a_feedback_csv_may_have_other_columns_in_any_order() -> None:
    found = list(csv_rows("\ufeffNote,TRUTH,Request-ID\nx,2,r-1\n".encode()))
    assert found == [{"truth": "2", "request_id": "r-1"}]


def test_lines_of_a_feedback_csv_are_judged_one_by_one() -> None:
    tracemalloc.start()
    with pytest.raises(InvalidRows):
        read_csv(COVERTYPE.target, b"request_id,truth\n" + b",\n" * 500_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Of a body of 1 MB.
    assert peak < 12_000_000


@pytest.mark.parametrize("row", [3, 3.0, "3"])
def test_a_row_number_may_be_any_json_spelling_of_an_integer(row: Any) -> None:
    body = json.dumps([{"request_id": "r", "row": row, "truth": 2}]).encode()
    assert [given.row_no for given in read_json(COVERTYPE.target, body)] == [3]


@pytest.mark.parametrize("row", [3.5, 0, -1.0, True, "3.0"])
def test_invalid_row_numbers_are_refused(row: Any) -> None:
    with pytest.raises(InvalidRows, match="the number of a row"):
        read_json(COVERTYPE.target, json.dumps([{"request_id": "r", "row": row, "truth": 2}]).encode())
