"""The check of received rows: accepted values, refused values and their reasons."""

import dataclasses
import json
import math
from typing import Any

import pytest

from dosel.quality import check
from dosel.rows import frames, hashing
from dosel.rows.validation import describe
from dosel.usecases import Number, UseCase
from dosel.usecases.covertype import COVERTYPE

GOOD: list[Any] = [*map(str, COVERTYPE.example.values()), "3"]
WIDTH = len(COVERTYPE.columns)


def row(**changes: Any) -> list[Any]:
    assert set(changes) <= set(COVERTYPE.columns)
    return [changes.get(name, good) for name, good in zip(COVERTYPE.columns, GOOD, strict=True)]


def reason(received: list[Any], coding: str = "uci", use_case: UseCase = COVERTYPE) -> str:
    """The reason why the row is refused, or "". The rows beside it must be accepted in any case."""
    checked = check(use_case, [GOOD, received, GOOD], coding)
    assert set(checked.accepted.index) | set(checked.refused) == {0, 1, 2}
    assert set(checked.refused) <= {1}
    return checked.refused.get(1, "")


def test_a_good_row_is_accepted_in_canonical_types() -> None:
    checked = check(COVERTYPE, [GOOD], "uci")
    assert checked.refused == {}
    assert tuple(checked.accepted.columns) == COVERTYPE.columns
    assert [str(t) for t in checked.accepted.dtypes] == ["float64"] * 10 + ["object"] * 2 + ["int64"]
    assert checked.accepted.iloc[0].to_dict() == COVERTYPE.example | {"Cover_Type": 3}


@pytest.mark.parametrize("received", [[], GOOD[:-1], [*GOOD, ""]], ids=["empty", "short", "long"])
def test_a_row_with_another_number_of_columns_is_refused(received: list[Any]) -> None:
    assert reason(received) == f"expected {WIDTH} values, got {len(received)}"


@pytest.mark.parametrize(
    "value",
    [
        *("north", "", " ", "nan", "NaN", "inf", "-inf", "1e999", "0x12", "1_7", "17;", "17,5", "true"),
        *(None, math.nan, math.inf, -math.inf, True, False, [17], {"a": 17}),
    ],
    ids=repr,
)
def test_text_that_is_not_a_number_is_refused(value: Any) -> None:
    assert reason(row(Slope=value)) == f"Slope: expected a whole number from 0 to 90 °, got {describe(value)}"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(10**400, "1" + "0" * 59 + "…"), ("9" * 400, '"' + "9" * 60 + '…"'), ("x" * 100_000, '"' + "x" * 60 + '…"')],
    ids=["integer", "digits", "letters"],
)
def test_the_reason_quotes_only_the_beginning_of_a_long_value(value: Any, shown: str) -> None:
    assert reason(row(Slope=value)) == f"Slope: expected a whole number from 0 to 90 °, got {shown}"


@pytest.mark.parametrize("number", COVERTYPE.numbers, ids=lambda n: n.name)
def test_bounds_are_inclusive(number: Number) -> None:
    for edge, outward in ((int(number.minimum), -1), (int(number.maximum), 1)):
        assert reason(row(**{number.name: str(edge)})) == ""
        beyond = str(edge + outward)
        assert (
            reason(row(**{number.name: beyond}))
            == f"{number.name}: expected {number.describe_expected()}, got {beyond}"
        )


def test_negative_vertical_distances_are_accepted() -> None:
    assert reason(row(Vertical_Distance_To_Hydrology="-173")) == ""


@pytest.mark.parametrize(("value", "accepted"), [("17.5", False), (17.5, False), ("17.0", True), (17.0, True)])
def test_an_integer_feature_refuses_a_fraction(value: Any, accepted: bool) -> None:
    assert (reason(row(Slope=value)) == "") is accepted


def test_a_feature_that_is_no_integer_accepts_a_fraction() -> None:
    slope = next(n for n in COVERTYPE.numbers if n.name == "Slope")
    features = tuple(dataclasses.replace(f, integer=False) if f is slope else f for f in COVERTYPE.features)
    use_case = dataclasses.replace(COVERTYPE, features=features)
    assert reason(row(Slope="17.5"), use_case=use_case) == ""


@pytest.mark.parametrize(
    ("column", "value", "meant"),
    [
        ("Wilderness_Area", "Rawah", "Rawah"),
        ("Wilderness_Area", "rawah", "Rawah"),
        ("Wilderness_Area", " CACHE ", "Cache"),
        ("Wilderness_Area", "Comanche Peak", "Commanche"),
        ("Soil_Type", "c7745", "C7745"),
        ("Soil_Type", "7745", "C7745"),
        ("Soil_Type", 7745, "C7745"),
    ],
)
def test_a_spelling_of_a_category_becomes_its_declared_value(column: str, value: Any, meant: str) -> None:
    checked = check(COVERTYPE, [row(**{column: value})], "uci")
    assert checked.refused == {}
    assert checked.accepted.at[0, column] == meant


@pytest.mark.parametrize(
    "value",
    ["Yosemite", "", "Rawah Cache", "nan", None, math.nan, True, 1, ["Rawah"]],
    ids=repr,
)
def test_an_unknown_category_is_refused_with_the_known_ones(value: Any) -> None:
    expected = f"Wilderness_Area: expected one of Rawah, Neota, Commanche, Cache, got {describe(value)}"
    assert reason(row(Wilderness_Area=value)) == expected


@pytest.mark.parametrize(
    ("coding", "sent", "code"),
    [
        ("uci", "1", 1),
        ("uci", "7", 7),
        ("uci", 7, 7),
        ("uci", "0", None),
        ("uci", "8", None),
        ("course", "0", 1),
        ("course", "6", 7),
        ("course", "7", None),
        ("course", "-1", None),
        ("", "7", 7),
        ("uci", "2.5", None),
        ("uci", "Aspen", None),
        ("uci", None, None),
        ("uci", True, None),
    ],
)
def test_classes_are_read_in_the_coding_of_the_source(coding: str, sent: Any, code: int | None) -> None:
    checked = check(COVERTYPE, [row(Cover_Type=sent)], coding)
    if code is None:
        assert checked.refused[0].startswith("Cover_Type: expected one of 1 (Spruce/Fir), ")
        assert checked.refused[0].endswith(f"got {describe(sent)}")
    else:
        assert checked.refused == {}
        assert checked.accepted.at[0, "Cover_Type"] == code


def test_all_reasons_of_a_row_are_given() -> None:
    found = reason(row(Elevation="high", Slope="91", Soil_Type="mud", Cover_Type="9")).split("; ")
    assert [part.partition(":")[0] for part in found] == ["Elevation", "Slope", "Soil_Type", "Cover_Type"]


def test_refused_rows_have_their_position_in_the_batch() -> None:
    checked = check(COVERTYPE, [[], GOOD, row(Slope="x"), row(Slope="1"), GOOD[1:]], "uci")
    assert list(checked.refused) == [0, 2, 4]
    assert checked.accepted["Slope"].to_dict() == {1: 17.0, 3: 1.0}


@pytest.mark.parametrize("bad", [[], ["x"] * WIDTH, [None] * WIDTH], ids=["no values", "text", "nothing"])
def test_every_row_of_a_batch_may_be_refused(bad: list[Any]) -> None:
    checked = check(COVERTYPE, [bad] * 3, "uci")
    assert list(checked.refused) == [0, 1, 2]
    assert checked.accepted.shape == (0, WIDTH)
    assert str(checked.accepted["Cover_Type"].dtype) == "int64"


def test_a_batch_may_be_empty() -> None:
    checked = check(COVERTYPE, [], "uci")
    assert (checked.accepted.shape, checked.refused) == ((0, WIDTH), {})


def test_numbers_may_be_json_numbers() -> None:
    as_numbers = json.loads(json.dumps([[*COVERTYPE.example.values(), 3]]))
    assert check(COVERTYPE, as_numbers, "uci").accepted.equals(check(COVERTYPE, [GOOD], "uci").accepted)


def test_every_missing_mark_is_stored_as_missing() -> None:
    use_case = dataclasses.replace(
        COVERTYPE,
        features=tuple(dataclasses.replace(f, optional=f.name in ("Slope", "Soil_Type")) for f in COVERTYPE.features),
        missing=("NA", "-"),
    )
    spelled = ["NA", " na ", "-", None, "", "17", "?", "91"]
    checked = check(use_case, [row(Slope=text, Soil_Type=text) for text in spelled[:5]], "uci")
    assert checked.refused == {}
    assert checked.accepted["Slope"].isna().all()
    assert checked.accepted["Soil_Type"].isna().all()
    checked = check(use_case, [row(Slope=text) for text in spelled[5:]], "uci")
    assert set(checked.refused) == {1, 2}
    assert checked.refused[1] == 'Slope: expected a whole number from 0 to 90 ° or nothing, got "?"'
    # The same row with and without a value are two rows, and a missing value is like itself.
    table = check(use_case, [row(), row(Slope=None), row(Slope="NA"), row(Soil_Type=None)], "uci").accepted
    assert len(set(hashing.row_keys(use_case, table).tolist())) == 3
    assert frames.canonical(use_case, table)["Soil_Type"].tolist()[-1] == ""
