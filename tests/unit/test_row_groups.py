"""Rows of requests that come at the same time share a run of their model, and nothing else."""

import asyncio
from typing import Any

import numpy as np
import pytest

from app.serving.row_groups import Answered, Row, RowGroups
from dosel.model.predictor import Prediction, Predictor, ScikitLearnDecides
from dosel.usecases.covertype import COVERTYPE
from tests.unit.test_predictor import CLASSIFIERS, fitted, numbers_and_codes, table


class Counted:
    """A predictor that notes how many rows each run had, and fails for rows whose first number is `fails`."""

    def __init__(self, predictor: Predictor, fails: float | None = None) -> None:
        self._predictor, self._fails = predictor, fails
        self.runs: list[int] = []

    def together(self, rows: Any) -> list[Prediction | None]:
        self.runs.append(len(rows))
        if self._fails in [numbers[0] for numbers, _ in rows]:
            raise ValueError("a secret value")
        return self._predictor.together(rows)


def rows(count: int) -> list[Row]:
    numbers, codes = numbers_and_codes(table(count, seed=3))
    return list(zip(numbers.tolist(), codes.tolist(), strict=True))


def asked(predictor: Any, given: list[Row], measure: bool = False) -> list[Answered | BaseException]:
    """What requests for these rows get that come in one turn."""

    async def ask() -> list[Answered | BaseException]:
        groups = RowGroups()
        calls = [groups.answer(predictor, row, measure) for row in given]
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(ask())


@pytest.mark.parametrize("name", ["forest", "boosted", "linear", "neighbours"])
def test_each_row_gets_the_answer_that_it_gets_by_itself(name: str) -> None:
    """To the last decimal: what others ask at the same time changes nothing."""
    predictor = Predictor(COVERTYPE, fitted(CLASSIFIERS[name]))
    given = [row for row in rows(64) if predictor.together([row]) != [None]]
    assert len(given) > 30
    counted = Counted(predictor)
    assert asked(counted, given) == [(predictor.one(*row), None) for row in given]
    assert counted.runs == [len(given)]


def test_only_the_tied_row_waits_for_scikit_learn() -> None:
    predictor = Predictor(COVERTYPE, fitted(CLASSIFIERS["neighbours"]))
    given = rows(200)
    alone = [predictor.together([row])[0] for row in given]
    found = asked(predictor, given)
    assert None in alone
    for answer, one in zip(found, alone, strict=True):
        if one is None:
            assert isinstance(answer, ScikitLearnDecides)
        else:
            assert answer == (one, None)


def test_a_row_that_the_model_cannot_answer_fails_alone() -> None:
    predictor = Predictor(COVERTYPE, fitted(CLASSIFIERS["tree"]))
    given = rows(3)
    odd = ([-1.0, *given[1][0][1:]], given[1][1])
    first, failed, last = asked(Counted(predictor, fails=-1.0), [given[0], odd, given[2]])
    assert isinstance(failed, ValueError)
    assert (first, last) == ((predictor.one(*given[0]), None), (predictor.one(*given[2]), None))


def test_a_request_that_is_given_up_takes_no_other_with_it() -> None:
    predictor = Predictor(COVERTYPE, fitted(CLASSIFIERS["tree"]))

    async def ask() -> Answered:
        groups = RowGroups()
        given_up, other = [asyncio.create_task(groups.answer(predictor, row, False)) for row in rows(2)]
        await asyncio.sleep(0)
        given_up.cancel()
        return await other

    assert asyncio.run(ask()) == (predictor.one(*rows(2)[1]), None)


def test_the_time_of_one_row_is_measured_now_and_then() -> None:
    """Each time would take as long as the answers of a whole group."""
    counted = Counted(Predictor(COVERTYPE, fitted(CLASSIFIERS["tree"])))

    async def ask() -> list[float | None]:
        groups = RowGroups()
        return [(await groups.answer(counted, row, measure=True))[1] for row in rows(5)]  # type: ignore[arg-type]

    took = asyncio.run(ask())
    assert took[0] is not None
    assert None in took


def test_the_time_of_one_row_is_measured_by_itself() -> None:
    """As that of versions in shadow: a run for many rows takes longer."""
    counted = Counted(Predictor(COVERTYPE, fitted(CLASSIFIERS["tree"])))
    found = asked(counted, rows(5), measure=True)
    assert counted.runs == [1, 5]
    times = {answer[1] for answer in found if isinstance(answer, tuple)}
    assert len(times) == 1
    [took] = times
    assert took is not None
    assert np.isfinite(took)
