"""A search on a terminal: candidates done, the best so far, the time left."""

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from dosel.training.search import Scored


class SearchBar:
    """Told of each candidate as it is scored. A context manager; it shows nothing where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("candidates"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("searching", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, scored: Scored) -> None:
        self._progress.update(self._task, total=scored.of, completed=scored.done, description=f"best {scored.best:.4f}")

    def say(self, words: str) -> None:
        """What goes on after the last candidate."""
        self._progress.update(self._task, description=words)
