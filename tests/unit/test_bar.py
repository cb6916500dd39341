"""The bar of `dosel train`."""

import io

import pytest
from rich.console import Console

from dosel.training.bar import SearchBar
from dosel.training.search import Scored


@pytest.mark.parametrize("terminal", [True, False])
def test_it_shows_how_far_the_search_is_on_a_terminal_only(terminal: bool) -> None:
    shown = io.StringIO()
    with SearchBar(Console(file=shown, force_terminal=terminal, width=100)) as bar:
        for done in (1, 2):
            bar(Scored(number=3 - done, of=4, done=done, params={}, score=0.5, best=0.75, metrics={}))
        bar.say("judged by the gate")
    if not terminal:
        assert shown.getvalue().strip() == ""
        return
    for words in ("candidates", "2/4", "judged by the gate"):
        assert words in shown.getvalue()
