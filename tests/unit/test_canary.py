"""A canary is judged by values, not by rows: rows with one value all go to one version."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dosel.monitor.canary import Draw, first_of_each
from dosel.monitor.comparison import compare_arms
from dosel.monitor.pairs import Arm
from dosel.usecases import Shadow, Target
from dosel.usecases.covertype import COVERTYPE

NUMBER, CATEGORY = COVERTYPE.numbers[0], COVERTYPE.categories[0]
CHALLENGER, CHAMPION = 2, 1
RIGHT = Target("kind", "Kind", labels={0: "wrong", 1: "right"})


def draw(number: int = 1, share: float = 0.3, feature: str = NUMBER.name) -> Draw:
    shadow: Any = SimpleNamespace(model="vf", number=number, role="challenger")
    made = Draw.of(COVERTYPE, Shadow(share=share, sticky_by=feature), shadow)
    assert made is not None
    return made


def test_only_the_first_row_of_each_value_counts() -> None:
    drawn = draw()
    values = [float(value) for value in range(100)]
    version = {value: CHALLENGER if drawn.takes(value) else CHAMPION for value in values}
    rows = [(value, version[value], (value, turn)) for turn in range(3) for value in values]
    challenger, champion = first_of_each(rows, drawn, CHALLENGER, CHAMPION)
    assert sorted(challenger + champion) == [(value, 0) for value in values]
    assert {version[value] for value, _ in challenger} == {CHALLENGER}


def test_rows_of_another_version_than_the_drawn_one_do_not_count() -> None:
    """The client named the version."""
    drawn = draw()
    other = {True: CHAMPION, False: CHALLENGER}
    rows: list[tuple[float | None, int, int]] = [(float(v), other[drawn.takes(float(v))], v) for v in range(100)]
    assert first_of_each([*rows, (None, CHAMPION, 0)], drawn, CHALLENGER, CHAMPION) == ([], [])


@pytest.mark.parametrize(
    ("feature", "logged", "value"),
    [
        (NUMBER.name, 2544, 2544.0),
        (NUMBER.name, 2544.5, 2544.5),
        (NUMBER.name, None, None),
        (CATEGORY.name, CATEGORY.values[2], 2),
        (CATEGORY.name, "no such value", None),
        (CATEGORY.name, None, None),
    ],
)
def test_a_logged_value_is_the_one_that_was_drawn(feature: str, logged: object, value: float | None) -> None:
    assert draw(feature=feature).logged(logged) == value


def test_values_with_easy_rows_do_not_prove_the_version_that_they_were_drawn_for() -> None:
    """Two equal versions; whether an answer is right depends on the value alone."""
    random, rules = np.random.default_rng(1), Shadow(share=0.3, sticky_by=NUMBER.name, min_labels=30)
    by_rows = by_values = 0
    for number in range(100):
        drawn, easy = draw(number), random.random(40) < 0.3
        rows = []
        for value in random.integers(0, 40, 1_000).tolist():
            version = CHALLENGER if drawn.takes(float(value)) else CHAMPION
            rows.append((float(value), version, int(random.random() < (0.95 if easy[value] else 0.6))))
        all_rows = [[right for _, version, right in rows if version == one] for one in (CHALLENGER, CHAMPION)]
        by_rows += is_better(rules, all_rows[0], all_rows[1])
        by_values += is_better(rules, *first_of_each(rows, drawn, CHALLENGER, CHAMPION))
    assert by_values == 0
    # This is what the test would miss if each row counted.
    assert by_rows > 5


def is_better(rules: Shadow, challenger: list[int], champion: list[int]) -> bool:
    arms = (Arm(np.ones(len(right), np.int64), np.array(right, np.int64)) for right in (challenger, champion))
    return compare_arms(RIGHT, rules, 1.0, *arms).proof.finding == "better"
