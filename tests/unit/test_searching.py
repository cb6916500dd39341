"""The progress bars of pulls and searches: shown in a terminal, never written to a file."""

import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from dosel.terminal import Bar, Bars, Pulling, Searching
from dosel.training.candidates import ScoredCandidate
from dosel.warehouse.records import BatchRecord

RECORD = BatchRecord(1, "group 6", "e1", 1, "x", datetime(2026, 11, 21, tzinfo=UTC), 1200, 1190, 7, 3, "")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_search_shows_its_progress(terminal: bool) -> None:
    shown = io.StringIO()
    with Searching(Console(file=shown, force_terminal=terminal, width=100)) as searching:
        for done in (1, 2):
            searching.scored(
                ScoredCandidate(number=3 - done, of=4, done=done, params={}, score=0.5, best=0.75, metrics={})
            )
        searching.say("judged by the gate")
    if not terminal:
        assert shown.getvalue() == ""
        return
    for words in ("search", "2/4", "best 0.7500", "judged by the gate"):
        assert words in shown.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_pull_shows_stored_and_refused_rows(terminal: bool) -> None:
    shown = io.StringIO()
    with Pulling(Console(file=shown, force_terminal=terminal, width=100)) as pulling:
        pulling.stored(RECORD)
        pulling.stored(replace(RECORD, number=2))
    if not terminal:
        assert shown.getvalue() == ""
        return
    for words in ("2 batches  2,400 rows", "rows/s", "14 refused  6 duplicates"):
        assert words in shown.getvalue()


def test_bars_are_added_updated_and_removed_by_title() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)

    def drawn() -> str:
        shown.truncate(0)
        bars._progress.refresh()
        return shown.getvalue()

    with Bars(console) as bars:
        bars.show([Bar("a [1]", "1/3  best 0.5", 1, 3), Bar("b", "4 rows")])
        both = drawn()
        assert "a [1]" in both
        assert "4 rows" in both
        bars.show([Bar("a [1]", "2/3  best 0.6", 2, 3)])
        one = drawn()
        assert "2/3  best 0.6" in one
        assert "4 rows" not in one
