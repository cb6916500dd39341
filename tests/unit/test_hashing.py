"""Canonical rows and their hashes: a row's key and its side of the split never change."""

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dosel.quality import check
from dosel.rows import frames, hashing, splits
from dosel.usecases import Split, UseCase
from dosel.usecases.covertype import COVERTYPE

Received = Callable[..., list[list[str]]]
EXAMPLE = COVERTYPE.example


def table(received: list[list[Any]]) -> pd.DataFrame:
    """The canonical frame of rows that are all valid."""
    checked = check(COVERTYPE, received, "uci")
    assert checked.refused == {}
    return checked.accepted


def with_split(**changes: Any) -> UseCase:
    return dataclasses.replace(COVERTYPE, split=dataclasses.replace(COVERTYPE.split, **changes))


def test_the_hash_of_a_known_row_never_changes() -> None:
    """A failure means that rows move between training and holdout: then increase HASH_VERSION."""
    known = frames.frame(
        COVERTYPE, [EXAMPLE, EXAMPLE | {"Elevation": 3000, "Wilderness_Area": "Rawah", "Soil_Type": "C7745"}]
    )
    assert splits.HASH_VERSION == "h1"
    drawn = hashing.hashes(known, COVERTYPE.feature_names, COVERTYPE.split.salt)
    assert [hex(h) for h in drawn] == ["0x41f9bb2c86c3db5e", "0xab5827105d18df"]
    keys = hashing.row_keys(COVERTYPE, known.assign(Cover_Type=[3, 1]))
    assert keys.tolist() == [-3778406519964603098, 3787571995568180651]
    assert hashing.digest(keys[:1]) == "ee941a82cbf18f9188ecbd2bd54287c12ca450a7eb0a402e311bb79ff7ecf8e7"
    assert splits.split_version(COVERTYPE) == "h1-covertype-1-0.3-387eca12"


def test_the_hashes_of_known_values_never_change() -> None:
    numbers, words = pd.DataFrame({"x": [1.0, 0.0]}), pd.DataFrame({"x": ["a", ""]})
    assert hashing.hashes(numbers, ["x"], "salt").tolist() == [6295637704780377224, 17766921333146602268]
    assert hashing.hashes(words, ["x"], "salt").tolist() == [679288362049947898, 4976080915287882266]


@pytest.mark.parametrize("spelling", [2544, 2544.0, "2544", "2544.0", " 2544", "2.544e3", np.int64(2544)])
def test_every_spelling_of_a_value_has_the_same_hash(spelling: Any) -> None:
    written = table([[*({**EXAMPLE, "Elevation": spelling}.values()), "3"]])
    typed = frames.frame(COVERTYPE, [EXAMPLE]).assign(Cover_Type=[3])
    assert hashing.row_keys(COVERTYPE, written) == hashing.row_keys(COVERTYPE, typed)
    assert hashing.is_held_out(COVERTYPE, written) == hashing.is_held_out(COVERTYPE, typed)


def test_integer_columns_hash_like_float_columns() -> None:
    whole, fractional = pd.DataFrame({"x": [0, 1, -7]}), pd.DataFrame({"x": [0.0, 1.0, -7.0]})
    assert (hashing.hashes(whole, ["x"], "s") == hashing.hashes(fractional, ["x"], "s")).all()


def test_minus_zero_is_zero() -> None:
    hashed = hashing.hashes(pd.DataFrame({"x": [0.0, -0.0]}), ["x"], "s")
    assert hashed[0] == hashed[1]


@pytest.mark.parametrize("dtype", ["object", "str", "category"])
def test_text_has_the_same_hash_in_every_column_type(dtype: Any) -> None:
    words = pd.Series(["Rawah", "Cache", "Rawah"])
    expected = hashing.hashes(pd.DataFrame({"x": words.astype("object")}), ["x"], "s")
    assert (hashing.hashes(pd.DataFrame({"x": words.astype(dtype)}), ["x"], "s") == expected).all()
    assert expected[0] == expected[2] != expected[1]


def test_the_order_of_columns_changes_the_hash() -> None:
    data = pd.DataFrame({"a": [1.0], "b": [2.0]})
    assert hashing.hashes(data, ["a", "b"], "s") != hashing.hashes(data, ["b", "a"], "s")


def test_another_salt_gives_other_hashes() -> None:
    data = pd.DataFrame({"a": [1.0, 2.0]})
    assert not (hashing.hashes(data, ["a"], "s") == hashing.hashes(data, ["a"], "t")).any()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda t: t.assign(Cover_Type=t["Cover_Type"] % 7 + 1), id="another class"),
        pytest.param(lambda t: t.assign(batch_id=range(len(t)), row_key=7), id="further columns"),
        pytest.param(lambda t: t[list(reversed(t.columns))], id="columns in another order"),
        pytest.param(lambda t: t.set_axis(range(1000, 1000 + len(t)), axis=0), id="another index"),
        pytest.param(lambda t: t.drop(columns="Cover_Type"), id="no class"),
    ],
)
def test_the_split_depends_on_the_features_alone(
    change: Callable[[pd.DataFrame], pd.DataFrame], received: Received
) -> None:
    data = table(received(200))
    assert (hashing.is_held_out(COVERTYPE, change(data)) == hashing.is_held_out(COVERTYPE, data)).all()


@pytest.mark.parametrize("feature", COVERTYPE.feature_names)
def test_the_split_depends_on_every_feature(feature: str, received: Received) -> None:
    data = table(received(60))
    moved = data.assign(**{feature: np.roll(data[feature].to_numpy(), 1)})
    salt = COVERTYPE.split.salt
    before, after = (hashing.hashes(t, COVERTYPE.feature_names, salt) for t in (data, moved))
    assert ((before != after) == (data[feature] != moved[feature])).all()


def test_a_row_keeps_its_side_of_the_split_when_batches_arrive(received: Received) -> None:
    first, later = received(200, seed=1), received(300, seed=2)
    alone = hashing.is_held_out(COVERTYPE, table(first))
    assert (hashing.is_held_out(COVERTYPE, table(first + later))[:200] == alone).all()
    assert (hashing.is_held_out(COVERTYPE, table(later + first))[300:] == alone).all()
    shuffled = random.Random(0).sample(range(200), 200)
    assert (hashing.is_held_out(COVERTYPE, table([first[i] for i in shuffled])) == alone[shuffled]).all()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_the_declared_share_is_held_out(share: float, received: Received) -> None:
    use_case = with_split(test_share=share)
    # Within four standard deviations of a fair draw of 5,000.
    assert hashing.is_held_out(use_case, table(received(5000))).mean() == pytest.approx(
        share, abs=4 * (share * (1 - share) / 5000) ** 0.5
    )


def test_a_larger_share_only_adds_rows_to_the_holdout(received: Received) -> None:
    data = table(received(500))
    smaller, larger = (hashing.is_held_out(with_split(test_share=share), data) for share in (0.2, 0.4))
    assert smaller.sum() < larger.sum()
    assert not (smaller & ~larger).any()


@pytest.mark.parametrize(
    "other",
    [
        with_split(salt="covertype-2"),
        with_split(test_share=0.25),
        dataclasses.replace(COVERTYPE, features=COVERTYPE.features[1:]),
        dataclasses.replace(COVERTYPE, features=tuple(reversed(COVERTYPE.features))),
    ],
    ids=["salt", "share", "fewer features", "order of features"],
)
def test_the_split_version_changes_with_the_split_rule(other: UseCase) -> None:
    assert splits.split_version(other) != splits.split_version(COVERTYPE)


def test_the_split_version_stays_while_the_split_rule_stays() -> None:
    other = dataclasses.replace(COVERTYPE, folds=5, families=(), split=Split("covertype-1", 0.3))
    assert splits.split_version(other) == splits.split_version(COVERTYPE)


def test_duplicates_have_equal_features_and_class() -> None:
    example = list(map(str, EXAMPLE.values()))
    keys = hashing.row_keys(COVERTYPE, table([[*example, "3"], [*example, "3"], [*example, "4"]]))
    assert keys[0] == keys[1] != keys[2]


def test_the_digest_of_rows_does_not_depend_on_their_order(received: Received) -> None:
    keys = hashing.row_keys(COVERTYPE, table(received(50)))
    digest = hashing.digest(keys)
    assert hashing.digest(keys[::-1]) == digest
    assert len({digest, hashing.digest(keys[1:]), hashing.digest(keys[:0])}) == 3
    assert len(digest) == 64


def test_the_canonical_frame_has_the_declared_order_and_types() -> None:
    given = {"surplus": "x"} | dict(reversed(EXAMPLE.items())) | {"Elevation": "2544"}
    data = frames.frame(COVERTYPE, [given, EXAMPLE])
    assert tuple(data.columns) == COVERTYPE.feature_names
    assert [str(data[n.name].dtype) for n in COVERTYPE.numbers] == ["float64"] * 10
    assert [str(data[c.name].dtype) for c in COVERTYPE.categories] == ["object"] * 2
    assert data.iloc[0].equals(data.iloc[1])


def test_the_frame_of_no_rows_is_empty() -> None:
    data = frames.frame(COVERTYPE, [])
    assert data.shape == (0, 12)
    assert len(hashing.is_held_out(COVERTYPE, data)) == 0
