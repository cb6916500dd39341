"""What `dosel train` shows while it searches."""

import io

import pytest
from rich.console import Console

from dosel.terminal import Searching
from dosel.training.search import Scored


@pytest.mark.parametrize("terminal", [True, False])
def test_it_shows_how_far_the_search_is_on_a_terminal_only(terminal: bool) -> None:
    shown = io.StringIO()
    with Searching(Console(file=shown, force_terminal=terminal, width=100)) as searching:
        for done in (1, 2):
            searching.scored(Scored(number=3 - done, of=4, done=done, params={}, score=0.5, best=0.75, metrics={}))
        searching.say("judged by the gate")
    if not terminal:
        assert shown.getvalue().strip() == ""
        return
    for words in ("candidates", "2/4", "judged by the gate"):
        assert words in shown.getvalue()
