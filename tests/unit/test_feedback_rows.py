"""Feedback rows: classes are read as ingest reads them, or by their labels."""

import json
from typing import Any

import pytest

from dosel.monitor.feedback_rows import MAX_ROWS, class_code, csv_rows, read_json
from dosel.rows.validation import InvalidRows
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


def test_a_feedback_csv_may_have_other_columns_in_any_order() -> None:
    found = csv_rows("\ufeffNote,TRUTH,Request-ID\nx,2,r-1\n".encode())
    assert found == [{"truth": "2", "request_id": "r-1"}]


@pytest.mark.parametrize("row", [3, 3.0, "3"])
def test_a_row_number_may_be_any_json_spelling_of_an_integer(row: Any) -> None:
    body = json.dumps([{"request_id": "r", "row": row, "truth": 2}]).encode()
    assert [given.row_no for given in read_json(COVERTYPE.target, body)] == [3]


@pytest.mark.parametrize("row", [3.5, 0, -1.0, True, "3.0"])
def test_invalid_row_numbers_are_refused(row: Any) -> None:
    with pytest.raises(InvalidRows, match="the number of a row"):
        read_json(COVERTYPE.target, json.dumps([{"request_id": "r", "row": row, "truth": 2}]).encode())
