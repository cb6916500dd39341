"""Every reader gives the same result and the same message for a value."""

import csv
import io
import json
import random
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dosel.quality import check
from dosel.rows.columns import UNKNOWN, Columns, codes_of
from dosel.rows.csv import CsvReader
from dosel.rows.json import JsonReader
from dosel.rows.text import as_text
from dosel.rows.validation import (
    FEW_ROWS,
    CategoryCodes,
    InvalidRows,
    InvalidValue,
    Validator,
    describe,
    without_values,
)
from dosel.usecases import Category, Choice, Number, Target, UseCase, as_number
from dosel.usecases.penguins import PENGUINS

AREA = Category(
    "area", "Area", (Choice("Rawah", "Rawah"), Choice("C7", "Cache", ("7", "Cache la Poudre"))), "Rawah", ""
)
USE_CASE = UseCase(
    name="cells",
    title="",
    summary="",
    features=(
        Number("slope", "Slope", "°", 0, 90, 17, "", aliases=("steepness",)),
        Number("share", "Share", "", -0.5, 0.5, 0.25, "", integer=False, optional=True),
        AREA,
        Category("side", "Side", (Choice("left", "Left"), Choice("right", "Right")), "left", "", optional=True),
    ),
    target=Target("class", "Class", {0: "No", 1: "Yes"}),
    experiment="",
    model_name="",
    families=(),
    split=PENGUINS.split,
    missing=("NA", "."),
)
NAMES = USE_CASE.feature_names
Verdict = tuple[list[Any], str]
Way = Callable[[dict[str, Any]], Verdict]


def accepted(columns: Columns) -> Verdict:
    return [*columns.row(USE_CASE).values()], ""


def by_mapping(row: dict[str, Any]) -> Verdict:
    columns, errors = Validator(USE_CASE).check_rows([row])
    return ([], "; ".join(error.message for error in errors[0])) if errors else accepted(columns)


def by_json(row: dict[str, Any]) -> Verdict:
    try:
        numbers, codes, _model = JsonReader(USE_CASE).row(json.dumps(row).encode())
    except InvalidRows as error:
        return [], str(error)
    return accepted(Columns(np.array([numbers], np.float64), np.array([codes], np.intp)))


def by_json_list(row: dict[str, Any]) -> Verdict:
    try:
        return accepted(JsonReader(USE_CASE).rows(BytesIO(json.dumps([row]).encode())))
    except InvalidRows as error:
        return [], str(error).replace("row 1: ", "")


def by_csv(delimiter: str) -> Way:
    def way(row: dict[str, Any]) -> Verdict:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, NAMES, delimiter=delimiter)
        writer.writeheader()
        writer.writerow(
            {n: str(v).replace(".", ",") if delimiter == ";" and isinstance(v, float) else v for n, v in row.items()}
        )
        try:
            [block] = CsvReader(USE_CASE).blocks(BytesIO(out.getvalue().encode()))
        except InvalidRows as error:
            return [], str(error).replace("row 1: ", "")
        return accepted(block.columns)

    return way


def by_ingest(row: dict[str, Any]) -> Verdict:
    checked = check(USE_CASE, [[*(row.get(name) for name in NAMES), "1"]], "")
    if checked.refused:
        return [], checked.refused[0]
    values = checked.accepted.iloc[0].drop("class").tolist()
    return [None if pd.isna(value) else value for value in values], ""


WAYS: dict[str, Way] = {
    "mapping": by_mapping,
    "JSON": by_json,
    "JSON list": by_json_list,
    "CSV": by_csv(","),
    "CSV with semicolons": by_csv(";"),
    "ingest": by_ingest,
}
WHOLE = "expected a whole number from 0 to 90 °"
SHARE = "expected a number from -0.5 to 0.5 or nothing"
AREAS = "expected one of Rawah, C7"

VALUES: list[tuple[str, Any, Any]] = [
    # A field, a value, and its parsed value or the error message.
    ("slope", 0, 0.0),
    ("slope", 90, 90.0),
    ("slope", 17.0, 17.0),
    ("slope", "17", 17.0),
    ("slope", " +17 ", 17.0),
    ("slope", "1.7e1", 17.0),
    ("slope", 91, f"slope: {WHOLE}, got 91"),
    ("slope", "91", f"slope: {WHOLE}, got 91"),
    ("slope", -1, f"slope: {WHOLE}, got -1"),
    ("slope", 17.5, f"slope: {WHOLE}, got 17.5"),
    ("slope", 17.0000000001, f"slope: {WHOLE}, got 17.0000000001"),
    ("slope", 1e-42, f"slope: {WHOLE}, got 1e-42"),
    ("slope", "steep", f'slope: {WHOLE}, got "steep"'),
    ("slope", "1_7", f'slope: {WHOLE}, got "1_7"'),
    ("slope", "0x12", f'slope: {WHOLE}, got "0x12"'),
    ("slope", "1\0", f'slope: {WHOLE}, got "1\\u0000"'),
    ("slope", "inf", f'slope: {WHOLE}, got "inf"'),
    ("slope", "x" * 1000, f'slope: {WHOLE}, got "{"x" * 60}…"'),
    ("slope", None, f"slope: {WHOLE}, got nothing"),
    ("slope", "", f"slope: {WHOLE}, got nothing"),
    ("slope", "NA", f'slope: {WHOLE}, got "NA"'),
    ("share", 0.1, 0.1),
    ("share", -0.5, -0.5),
    ("share", None, None),
    ("share", "", None),
    ("share", " na ", None),
    ("share", ".", None),
    ("share", "?", f'share: {SHARE}, got "?"'),
    ("share", 0.51, f"share: {SHARE}, got 0.51"),
    ("area", "Rawah", "Rawah"),
    ("area", " RAWAH ", "Rawah"),
    ("area", "cache LA poudre", "C7"),
    ("area", 7, "C7"),
    ("area", "Rawah2", f'area: {AREAS}, got "Rawah2"'),
    ("area", "Ra wah", f'area: {AREAS}, got "Ra wah"'),
    ("area", 8, f"area: {AREAS}, got 8"),
    ("area", "C7\0", f'area: {AREAS}, got "C7\\u0000"'),
    ("area", "", f"area: {AREAS}, got nothing"),
    ("area", "NA", f'area: {AREAS}, got "NA"'),
    ("side", "LEFT", "left"),
    ("side", "", None),
    ("side", "NA", None),
    ("side", None, None),
    ("side", "up", 'side: expected one of left, right or nothing, got "up"'),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("field", "value", "expected"), VALUES, ids=[f"{f} {str(v)[:12]!r}" for f, v, _ in VALUES])
def test_a_value_gets_the_same_result_from_every_reader(way: str, field: str, value: Any, expected: Any) -> None:
    values, message = WAYS[way](USE_CASE.example | {field: value})
    if isinstance(expected, str) and "expected" in expected:
        assert (values, message) == ([], expected)
    else:
        assert message == ""
        assert dict(zip(NAMES, values, strict=True)) == USE_CASE.example | {field: expected}


@pytest.mark.parametrize("seed", range(20))
def test_few_rows_are_judged_as_many_are(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Arrow, which reads most numbers itself."""
    dice = random.Random(seed)
    rows = [USE_CASE.example | {field: value for field, value, _ in dice.sample(VALUES, 2)} for _ in range(FEW_ROWS)]
    few = Validator(USE_CASE).check_rows(rows)
    monkeypatch.setattr("dosel.rows.validation.FEW_ROWS", 0)
    columns, errors = Validator(USE_CASE).check_rows(rows)
    np.testing.assert_array_equal(few[0].numbers, columns.numbers)
    np.testing.assert_array_equal(few[0].codes, columns.codes)
    assert few[1] == errors


@pytest.mark.parametrize("way", WAYS)
def test_all_errors_of_a_row_are_in_the_order_of_the_features(way: str) -> None:
    _, message = WAYS[way]({"slope": 91, "share": 1, "area": "?", "side": "?"})
    assert [part.partition(":")[0] for part in message.split("; ")] == list(NAMES)[: len(message.split("; "))]
    assert message.startswith(f"slope: {WHOLE}, got 91; share: {SHARE}, got 1")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"Steepness": 17}, ""),
        ({"SLOPE": 17}, ""),
        ({"slope": 17, "Steepness": 18}, "Steepness: expected no field of this name, got 18"),
        ({"slope": 17, "slop": 1}, "slop: expected no field of this name (did you mean slope?), got 1"),
        ({}, f"slope: {WHOLE}, got nothing"),
    ],
)
def test_json_field_names_match_like_csv_headers_and_unknown_names_are_refused(
    row: dict[str, Any], message: str
) -> None:
    row = {"area": "Rawah"} | row
    _, errors = Validator(USE_CASE).check_rows([row])
    assert "; ".join(error.message for error in errors.get(0, [])) == message


@pytest.mark.parametrize("row", [None, 1, "row", [], [1], {f"f{i}": 1 for i in range(200)}], ids=lambda r: str(r)[:9])
def test_a_value_that_is_no_row_gets_one_error(row: Any) -> None:
    [[error]] = Validator(USE_CASE).check_rows([row])[1].values()
    assert error.field is None
    assert error.message.startswith("expected a JSON object with the fields slope, share, area, side, got ")


def test_the_first_hundred_invalid_rows_are_listed_with_all_their_errors() -> None:
    rows = [USE_CASE.example | ({"slope": 91, "share": 9} if i % 2 else {}) for i in range(400)]
    with pytest.raises(InvalidRows) as refused:
        JsonReader(USE_CASE).rows(BytesIO(json.dumps(rows).encode()))
    errors = refused.value.errors
    assert [error.row for error in errors[::2]] == list(range(2, 202, 2))
    assert errors[1].message == f"row 2: share: {SHARE}, got 9"


def test_looking_up_a_category_does_not_grow_the_codes() -> None:
    codes = CategoryCodes(AREA, frozenset())
    size = len(codes)
    for blanks in range(1000):
        assert codes[" " * blanks + "rawah"] == 0
    assert len(codes) == size


@given(
    st.one_of(st.floats().map(str), st.from_regex(r"[ +-]?[0-9.]{0,6}([eE][+-]?[0-9]{0,4})?[ dfx]?", fullmatch=True))
)
def test_arrow_and_the_validator_read_the_same_numbers(text: str) -> None:
    """Arrow parses columns of plain numbers; the validator's own grammar parses all others."""
    try:
        value = pa.array([text]).cast(pa.float64())[0].as_py()
    except pa.ArrowInvalid:
        return
    assert np.array_equal(value, as_number(text)) or not np.isfinite(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9" * 1_000_000 + "x", None),
        ("1e" + "9" * 1_000_000 + "x", None),
        ("." + "9" * 1_000_000 + "x", None),
        ("9" * 1_001, None),
        (" " * 1_000_000 + "7", 7.0),
        ("0" * 990 + "7", 7.0),
        ("1.", 1.0),
        (".5e1", 5.0),
        (".", None),
        ("1e", None),
    ],
    ids=lambda value: str(value)[:4],
)
def test_long_texts_are_judged_at_once(text: str, value: float | None) -> None:
    """An expression that tries each division of the digits would take hours for the first ones."""
    number = as_number(text)
    assert np.isnan(number) if value is None else number == value


def test_columns_from_frames_tables_and_rows_are_equal() -> None:
    rows: list[dict[str, Any]] = [
        dict(USE_CASE.example),
        USE_CASE.example | {"share": None, "area": "C7", "side": None},
    ]
    columns = Columns.of_rows(USE_CASE, rows)
    assert columns.codes.tolist() == [[0, 0], [1, UNKNOWN]]
    assert [columns.row(USE_CASE, place) for place in range(2)] == rows
    table = pa.table({name: [row[name] for row in rows] for name in NAMES})
    for data in (table, table.to_pandas()):
        found = Columns.of(USE_CASE, data)
        assert np.array_equal(found.numbers, columns.numbers, equal_nan=True)
        assert (found.codes == columns.codes).all()
    matrix = columns.matrix(USE_CASE)
    again = Columns.of_matrix(USE_CASE, matrix)
    assert np.array_equal(again.numbers, columns.numbers, equal_nan=True)
    assert (again.codes == columns.codes).all()
    assert codes_of(AREA, ["C7", "?", None]).tolist() == [1, UNKNOWN, UNKNOWN]


def test_columns_of_text_are_refused_as_rows_are() -> None:
    received = [[*map(str, USE_CASE.example.values())], ["91", "NA", "7", ""]]
    verdict = Validator(USE_CASE).check(as_text(received, NAMES), 2)
    assert [(feature.name, bad.tolist()) for feature, bad in verdict.refused] == [("slope", [False, True])]


@pytest.mark.parametrize(
    "received", ["ill; Anna: expected in May", 'a " b; Age: expected x', "back\\slash", "17.5", ["x"]]
)
def test_messages_are_shown_without_what_was_received(received: Any) -> None:
    """A received text may look like the next message."""
    messages = [InvalidValue(name, "a number", describe(received)).message for name in ("Age", "Sleep")]
    assert without_values("; ".join(messages)) == (
        "Age: expected a number, got a value that is not shown; Sleep: expected a number, got a value that is not shown"
    )
