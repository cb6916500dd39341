"""The two ways to read a row against each other: what the fast one accepts, the documented one accepts, and alike."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.batching import BatchReader, InvalidRows
from app.reading import REFUSED, RowReader, UnreadableBody
from app.schemas.rows import request_model, row_model
from dosel.usecases import Category, Feature, Number
from dosel.usecases.covertype import COVERTYPE

SCALE = int(os.environ.get("FUZZ_SCALE", "1"))
"""How many times as many cases as in an ordinary run; `make fuzz` sets it."""

READER = RowReader(COVERTYPE)
REQUEST, ROW = request_model(COVERTYPE), row_model(COVERTYPE)

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
    """Mostly acceptable ones: a row that is wrong everywhere tells little."""
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
def test_what_the_fast_way_accepts_the_documented_one_accepts_too_and_alike(row: dict[str, Any], named: bool) -> None:
    try:
        numbers, codes, model = READER.one(json.dumps(row).encode(), may_name_model=named)
    except REFUSED:
        return
    documented: Any = (REQUEST if named else ROW).model_validate(row)
    assert list(numbers) == [getattr(documented, number.name) for number in COVERTYPE.numbers]
    assert [c.values[i] for c, i in zip(COVERTYPE.categories, codes, strict=True)] == [
        getattr(documented, category.name) for category in COVERTYPE.categories
    ]
    assert model == (documented.model if named else None)


@settings(max_examples=200 * SCALE, deadline=None)
@given(st.sampled_from(COVERTYPE.features).flatmap(lambda f: st.tuples(st.just(f), values(f))))
def test_what_the_documented_way_refuses_the_fast_one_refuses_too(changed: tuple[Feature, Any]) -> None:
    feature, value = changed
    row = COVERTYPE.example | {feature.name: value}
    try:
        ROW.model_validate(row)
    except ValidationError:
        with pytest.raises(REFUSED):
            READER.one(json.dumps(row).encode(), may_name_model=False)


def test_an_ordinary_row_takes_the_fast_way() -> None:
    numbers, codes, model = READER.one(json.dumps(COVERTYPE.example).encode(), may_name_model=True)
    assert list(numbers) == [float(number.example) for number in COVERTYPE.numbers]
    assert [c.values[i] for c, i in zip(COVERTYPE.categories, codes, strict=True)] == [
        category.example for category in COVERTYPE.categories
    ]
    assert model is None


@settings(max_examples=300 * SCALE, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_no_bytes_break_the_readers(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    check_bytes(tmp_path_factory.getbasetemp() / "fuzzed.csv", body)


@settings(max_examples=200 * SCALE, deadline=None)
@given(st.lists(some_rows, max_size=4), st.data())
def test_no_damage_to_a_good_body_breaks_the_readers(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    for whole in (json.dumps(rows).encode(), as_csv(rows)):
        at = data.draw(st.integers(0, len(whole)))
        damage = data.draw(st.binary(max_size=6))
        cut = data.draw(st.integers(0, 6))
        check_bytes(tmp_path_factory.getbasetemp() / "damaged.csv", whole[:at] + damage + whole[at + cut :])


class Model:
    """Stands for the loaded model: reading is what is tried here."""

    class predictor:
        classes, names = (1,), ("one",)

        @staticmethod
        def scores(numbers: Any, codes: Any) -> Any:
            import numpy as np

            from dosel.model.predictor import Scores

            for i, number in enumerate(COVERTYPE.numbers):
                assert ((numbers[:, i] >= number.minimum) & (numbers[:, i] <= number.maximum)).all()
            assert (codes >= 0).all()
            return Scores(np.zeros(len(numbers), dtype=np.intp), np.ones((len(numbers), 1)))

    signature = b"}"


def check_bytes(file: Path, body: bytes) -> None:
    """The readers answer these bytes, or refuse them as they say they do."""
    reader, served, out = BatchReader(COVERTYPE, ROW), Model(), io.BytesIO()
    try:
        reader.answer_json(body, served, out)  # type: ignore[arg-type]
    except (UnreadableBody, InvalidRows):
        pass
    else:
        json.loads(out.getvalue())
    file.write_bytes(body)
    out = io.BytesIO()
    try:
        reader.answer_csv(file, served, out)  # type: ignore[arg-type]
    except (UnreadableBody, InvalidRows):
        return
    list(csv.DictReader(io.StringIO(out.getvalue().decode())))


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COVERTYPE.feature_names)
    writer.writerows([[row[name] for name in COVERTYPE.feature_names] for row in rows])
    return out.getvalue().encode("utf-8", "surrogatepass")
