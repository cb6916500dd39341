"""The JSON and CSV readers with random values and bytes."""

import csv
import io
import json
import os
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dosel.rows.columns import Columns
from dosel.rows.csv import CsvReader
from dosel.rows.json import JsonReader
from dosel.rows.validation import InvalidRows, UnreadableRows
from dosel.usecases import Category, Feature, Number
from dosel.usecases.covertype import COVERTYPE

SCALE = int(os.environ.get("FUZZ_SCALE", "1"))
"""The factor for the number of examples of an ordinary run, which `make fuzz` sets."""

READER, CSV_READER = JsonReader(COVERTYPE), CsvReader(COVERTYPE)

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


def values(feature: Feature) -> st.SearchStrategy[Any]:
    """Values of a column, mostly valid, so that most rows have at most one error."""
    match feature:
        case Number():
            good: st.SearchStrategy[Any] = st.one_of(
                st.integers(int(feature.minimum), int(feature.maximum)),
                st.integers(int(feature.minimum), int(feature.maximum)).map(float),
                st.sampled_from(
                    [feature.minimum, feature.maximum, feature.minimum - 1, feature.maximum + 1, feature.minimum + 1e-7]
                ),
            )
        case Category():
            spellings = st.sampled_from(sorted(feature.spellings) + list(feature.values))
            good = st.one_of(spellings, spellings.map(str.upper), spellings.map(lambda text: f" {text}\t"))
    return st.integers(0, 40).flatmap(lambda drawn: odd if drawn == 0 else good)


some_rows = st.fixed_dictionaries(
    {feature.name: values(feature) for feature in COVERTYPE.features},
    optional={"model": st.one_of(st.none(), st.text(max_size=3), st.integers())},
)


@settings(max_examples=400 * SCALE, deadline=None)
@given(some_rows, st.booleans())
def test_msgspec_and_the_validator_agree(row: dict[str, Any], with_model: bool) -> None:
    """`JsonReader.row` returns what the validator alone would return, and raises the same errors."""
    body = json.dumps(row).encode()
    found, alone = (outcome(partial(read, body, with_model)) for read in (READER.row, READER.judged_row))
    assert found == alone
    rows = json.dumps([{name: row[name] for name in COVERTYPE.feature_names}] * 2).encode()
    found, alone = (outcome(partial(read, BytesIO(rows))) for read in (READER.rows, READER._judged_rows))
    assert found == alone


def outcome(read: Callable[[], Any]) -> list[Any]:
    """What a reader returned, or the errors it raised, as plain lists."""
    try:
        result = read()
    except InvalidRows as error:
        return [*error.errors]
    if isinstance(result, Columns):
        return [result.numbers.tolist(), result.codes.tolist()]
    numbers, codes, model = result
    return [list(numbers), list(codes), model]


def test_a_plain_row_is_read_by_msgspec_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(READER, "judged_row", None)
    monkeypatch.setattr(READER, "_judged_rows", None)
    numbers, codes, model = READER.row(json.dumps(COVERTYPE.example).encode(), with_model=True)
    assert list(numbers) == [float(number.example) for number in COVERTYPE.numbers]
    assert [c.values[i] for c, i in zip(COVERTYPE.categories, codes, strict=True)] == [
        category.example for category in COVERTYPE.categories
    ]
    assert model is None
    assert len(READER.rows(BytesIO(json.dumps([COVERTYPE.example] * 3).encode()))) == 3


def test_reading_a_list_stops_at_the_hundredth_invalid_row() -> None:
    with pytest.raises(InvalidRows) as refused:
        READER.rows(BytesIO(b"[" + b"{}," * 1_000_000 + b"nonsense"))
    assert refused.value.errors[-1].row == 100


@pytest.mark.parametrize("body", [b"[]", b" [ ]\n"])
def test_an_empty_list_has_no_rows(body: bytes) -> None:
    assert len(READER.rows(BytesIO(body))) == 0
    assert len(READER._judged_rows(BytesIO(body))) == 0


@settings(max_examples=300 * SCALE, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_readers_accept_or_refuse_any_bytes(body: bytes) -> None:
    check_bytes(body)


@settings(max_examples=200 * SCALE, deadline=None)
@given(st.lists(some_rows, max_size=4), st.data())
def test_readers_accept_or_refuse_a_damaged_body(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    for whole in (json.dumps(rows).encode(), as_csv(rows)):
        at = data.draw(st.integers(0, len(whole)))
        damage = data.draw(st.binary(max_size=6))
        cut = data.draw(st.integers(0, 6))
        check_bytes(whole[:at] + damage + whole[at + cut :])


def check_bytes(body: bytes) -> None:
    """Check that the readers return valid rows of these bytes, or raise their documented errors."""
    reads: list[Callable[[], list[Columns]]] = [
        lambda: [READER.rows(BytesIO(body))],
        lambda: [block.columns for block in CSV_READER.blocks(BytesIO(body))],
    ]
    for read in reads:
        try:
            parts = read()
        except (UnreadableRows, InvalidRows):
            continue
        for columns in parts:
            for i, number in enumerate(COVERTYPE.numbers):
                assert ((columns.numbers[:, i] >= number.minimum) & (columns.numbers[:, i] <= number.maximum)).all()
            assert (columns.codes >= 0).all()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COVERTYPE.feature_names)
    writer.writerows([[row[name] for name in COVERTYPE.feature_names] for row in rows])
    return out.getvalue().encode("utf-8", "surrogatepass")
