"""Looks at the holdout: counted once each, with shares that add up to the budget, and rotated when they are used up."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dosel.model import tags
from dosel.registry.looks import PastLook, distinct, holdout, share
from dosel.registry.store import ModelVersion
from dosel.registry.unseen import UnseenRows
from dosel.rows import hashing, splits
from dosel.usecases import Gate
from dosel.usecases.penguins import PENGUINS

LOOKS = 3
USE_CASE = dataclasses.replace(PENGUINS, gate=Gate(looks=LOOKS))
NOW = splits.split_version(USE_CASE)
USED_UP = [PastLook(n, "run", 1, NOW, 100, 1) for n in range(LOOKS)]
ROTATED = dataclasses.replace(USE_CASE, split=holdout(USE_CASE, USED_UP).split)
NEXT = splits.split_version(ROTATED)


def report(champion: int | None = 1, split: str = NOW, rows: int = 100, last_batch: int = 1) -> dict[str, Any]:
    figures = {"accuracy": 0.8}
    metrics = {"challenger": figures} | ({} if champion is None else {"production": figures})
    return {
        "champion": champion,
        "metrics": metrics,
        "split": split,
        "rows": rows,
        "look": {"last_batch": last_batch},
    }


@pytest.mark.parametrize("looks", [1, 7, 100])
def test_the_shares_of_all_looks_add_up_to_the_budget(looks: int) -> None:
    assert sum(share(looks, k) for k in range(looks)) == pytest.approx(1)


def test_rows_that_were_never_looked_at_give_a_part_of_the_budget_back() -> None:
    assert share(100, 1) < share(100, 0.5) < share(100, 0)


def test_a_comparison_counts_once_and_a_first_version_does_not() -> None:
    killed_and_repeated = [(2, "b", report()), (2, "b", report())]
    assert len(distinct([(1, "a", report(champion=None)), *killed_and_repeated])) == 1
    assert len(distinct([*killed_and_repeated, (2, "b", report(champion=3)), (2, "b", report(rows=120))])) == 3


def test_a_report_from_before_looks_were_counted_is_a_look() -> None:
    old = report()
    del old["look"]
    assert [look.last_batch for look in distinct([(2, "b", old)])] == [None]


def test_the_holdout_is_rotated_once_its_looks_are_used_up() -> None:
    past = USED_UP
    assert [holdout(USE_CASE, past[:n]).left for n in range(LOOKS)] == [3, 2, 1]
    then = holdout(USE_CASE, past)
    assert (then.epoch, then.looks, then.left, then.split.salt) == (1, 0, 3, "penguins-1.1")
    later = [PastLook(n, "run", 1, NEXT, 100, 1) for n in range(LOOKS)]
    assert holdout(USE_CASE, [*past, *later]).split.salt == "penguins-1.2"
    # What the ledger has of another declared salt counts for that salt alone.
    other = dataclasses.replace(USE_CASE, split=dataclasses.replace(USE_CASE.split, salt="mine"))
    assert holdout(other, past) == holdout(other, [])


def test_the_split_of_a_version_is_found_from_its_text() -> None:
    for salt in ("penguins-1", "a-b-c", "penguins-1.3"):
        split = dataclasses.replace(USE_CASE.split, salt=salt)
        version = splits.split_version(dataclasses.replace(USE_CASE, split=split))
        assert splits.split_of(USE_CASE, version) == split


@pytest.mark.parametrize("text", [None, "", "h1", "h0-penguins-1-0.3-00000000", NOW.replace("h1", "h0"), f"{NOW}0"])
def test_an_unknown_split_is_none(text: str | None) -> None:
    assert splits.split_of(USE_CASE, text) is None


RNG = np.random.default_rng(0)


def clean(batch: int, count: int = 400) -> pd.DataFrame:
    """Clean rows of one batch."""
    numbers = {n.name: RNG.uniform(n.minimum, n.maximum, count).round(3) for n in USE_CASE.numbers}
    categories = {c.name: RNG.choice(c.values, count) for c in USE_CASE.categories}
    table = pd.DataFrame({**numbers, **categories, "species": RNG.integers(0, 3, count)})[list(USE_CASE.columns)]
    return table.assign(batch_id=batch, row_key=hashing.row_keys(USE_CASE, table))


PARTS = [clean(1), clean(2)]


def version(number: int, split: str, batches: str, keys: Any, attested: bool = True) -> ModelVersion:
    known = {tags.SPLIT_VERSION: split, tags.BATCH_IDS: batches, tags.DATA_DIGEST: hashing.digest(keys)}
    when = pd.Timestamp("2026-01-01").to_pydatetime()
    return ModelVersion("penguins", number, f"run {number}", when, "", (), {}, {}, known, attested)


OLD = version(1, NOW, "[1]", PARTS[0]["row_key"].to_numpy())
CHALLENGER = version(2, NEXT, "[1, 2]", pd.concat(PARTS)["row_key"].to_numpy())


def judged_rows(champion: ModelVersion) -> pd.DataFrame:
    return pd.concat(UnseenRows(ROTATED, lambda: PARTS, [CHALLENGER, champion]).parts())


def test_after_a_rotation_no_version_is_judged_on_rows_that_it_was_trained_on() -> None:
    rows = judged_rows(OLD)
    assert hashing.is_held_out(ROTATED, rows).all()
    assert hashing.is_held_out(USE_CASE, rows)[rows["batch_id"] == 1].all()
    # All rows that arrived after the champion's training are unseen, whichever side its split puts them on.
    later = hashing.is_held_out(ROTATED, PARTS[1]).sum()
    assert (rows["batch_id"] == 2).sum() == later > 0
    assert len(rows) > later


@pytest.mark.parametrize(
    "champion",
    [
        pytest.param(dataclasses.replace(OLD, attested=False), id="figures that can be edited in MLflow"),
        pytest.param(version(1, NOW, "[1]", PARTS[1]["row_key"].to_numpy()), id="batches with other rows"),
    ],
)
def test_later_rows_count_only_if_the_batches_of_a_training_are_proven(champion: ModelVersion) -> None:
    rows = judged_rows(champion)
    assert hashing.is_held_out(USE_CASE, rows).all()
    assert hashing.is_held_out(ROTATED, rows).all()


@pytest.mark.parametrize("block", [1, 7, 1_000])
def test_only_whole_blocks_of_the_oldest_rows_are_compared(block: int) -> None:
    whole = pd.concat(UnseenRows(USE_CASE, lambda: PARTS, []).parts())
    rows = UnseenRows(USE_CASE, lambda: PARTS, [], block)
    kept = len(whole) // block * block
    assert pd.concat([whole[:0], *rows.parts()])["row_key"].tolist() == whole["row_key"].tolist()[:kept]
    assert len(rows.judged(CHALLENGER, OLD, []).truth) == kept


def test_a_look_counts_how_often_each_row_was_looked_at() -> None:
    rows = UnseenRows(USE_CASE, lambda: PARTS, [])
    first, second = (int(hashing.is_held_out(USE_CASE, part).sum()) for part in PARTS)
    past = [PastLook(8, "run 8", 7, NOW, first, 1), PastLook(9, "run 9", 7, NOW, first, 1)]
    judged = rows.judged(CHALLENGER, OLD, past)
    look = judged.look
    assert look is not None
    assert len(judged.truth) == first + second
    assert (look.number, look.of, look.last_batch) == (3, LOOKS, 2)
    assert look.seen == pytest.approx(2 * first / (first + second))
    assert look.share == share(LOOKS, look.seen)


def test_the_same_comparison_again_is_the_same_look() -> None:
    rows = UnseenRows(USE_CASE, lambda: PARTS, [])
    first = rows.judged(CHALLENGER, OLD, [])
    mine = PastLook(2, "run 2", 1, NOW, sum(len(part) for part in rows.parts()), 2)
    again = rows.judged(CHALLENGER, OLD, [mine, PastLook(3, "run 3", 1, NOW, mine.rows, 2)])
    assert again.look == first.look


def test_the_rotated_holdout_is_fresh_but_for_rows_that_both_splits_hold_out() -> None:
    past = [PastLook(n, f"run {n}", 1, NOW, 240, 2) for n in range(LOOKS)]
    look = UnseenRows(ROTATED, lambda: PARTS, []).judged(CHALLENGER, CHALLENGER, past).look
    assert look is not None
    assert look.number == 1
    assert look.seen == pytest.approx(LOOKS * USE_CASE.split.test_share, rel=0.25)


def test_the_values_of_declared_groups_are_read_with_the_rows() -> None:
    grouped = dataclasses.replace(USE_CASE, groups=("sex",))
    part = PARTS[0].assign(sex=PARTS[0]["sex"].where(PARTS[0]["island"] != "Dream", None))
    judged = UnseenRows(grouped, lambda: [part, PARTS[1]], []).judged(CHALLENGER, None, [])
    assert set(judged.groups["sex"]) == {"", "female", "male"}
    assert judged.groups["sex"].shape == judged.truth.shape
