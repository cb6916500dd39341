"""Answers the rows of requests that come at the same time together.

A run of ONNX Runtime for sixteen rows takes little longer than one for a single row.
"""

import asyncio
import time
from collections.abc import Sequence

from dosel.model.predictor import Prediction, Predictor, ScikitLearnDecides

Row = tuple[Sequence[float], Sequence[int]]
"""A row's numbers and codes."""

MEASURE_SECONDS = 0.05
"""Pause between two measurements of a row by itself, which takes as long as a run for all rows of a group."""

Answered = tuple[Prediction, float | None]
"""An answer, and the milliseconds of processor time for a row by itself, if they were measured."""


class RowGroups:
    """Collects the rows that come in one turn of the event loop. For the loop's thread only.

    `requests` counts the requests in progress whose rows may come.
    """

    def __init__(self) -> None:
        self.requests = 0
        self._measure_at = 0.0
        # By the model, and whether to measure.
        self._groups: dict[tuple[Predictor, bool], list[tuple[Row, asyncio.Future[Answered]]]] = {}

    async def answer(self, predictor: Predictor, row: Row, measure: bool) -> Answered:
        """The answer for one row, as `Predictor.one` gives it without waiting.

        Args:
            measure: whether to measure the processor time of a row now and then.

        Raises:
            ScikitLearnDecides: as `Predictor.one`.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Answered] = loop.create_future()
        if not self._groups:
            loop.call_soon(self._answer)
        self._groups.setdefault((predictor, measure), []).append((row, done))
        return await done

    def _answer(self) -> None:
        groups, self._groups = self._groups, {}
        for (predictor, measure), group in groups.items():
            due = measure and time.monotonic() >= self._measure_at
            if due:
                self._measure_at = time.monotonic() + MEASURE_SECONDS
            results = answers(predictor, [row for row, _ in group], due)
            for (_, done), result in zip(group, results, strict=True):
                if done.cancelled():
                    continue
                if isinstance(result, Exception):
                    done.set_exception(result)
                else:
                    done.set_result(result)


def answers(predictor: Predictor, rows: Sequence[Row], measure: bool) -> list[Answered | Exception]:
    """The answer for each row, or the reason why it has none."""
    took = None
    try:
        if measure:
            began = time.thread_time()
            predictor.together(rows[:1])
            took = (time.thread_time() - began) * 1000
        found = predictor.together(rows)
    except Exception as error:  # noqa: BLE001  a model may raise whatever it likes
        # Another request's row may be the reason.
        return [error] if len(rows) == 1 else [answers(predictor, [row], measure)[0] for row in rows]
    return [ScikitLearnDecides() if answer is None else (answer, took) for answer in found]
