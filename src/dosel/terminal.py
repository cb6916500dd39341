"""What a person at a terminal sees: progress of batches and searches, the ledger, the quarantine."""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from dosel.warehouse import BatchRecord, RefusedRow

if TYPE_CHECKING:
    from dosel.training.search import Scored


class _Live:
    """A line that lives at the bottom while work goes on, what dosel logs above it. A context manager."""

    def __init__(self, console: Console, *columns: ProgressColumn) -> None:
        self._progress = Progress(SpinnerColumn(), *columns, console=console, transient=True)
        self._handler = RichHandler(console=console, show_time=False, show_level=False, show_path=False)

    def __enter__(self) -> Self:
        log = logging.getLogger("dosel")
        log.addHandler(self._handler)
        log.setLevel(logging.INFO)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        logging.getLogger("dosel").removeHandler(self._handler)


class Pulling(_Live):
    """A line that lives while batches are pulled: rows, rows a second, refused; each batch's own line stays above it.

    Where nobody watches, in a file or a pipe, only the lines of the batches are written.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(
            console,
            TextColumn("{task.fields[batches]} batches"),
            TextColumn("{task.completed:,.0f} rows"),
            TextColumn("{task.fields[rate]:,.0f} rows/s"),
            TextColumn("{task.fields[refused]:,} refused"),
            TextColumn("{task.fields[duplicates]:,} duplicates"),
            TimeElapsedColumn(),
        )
        self._task = self._progress.add_task("", total=None, batches=0, rate=0.0, refused=0, duplicates=0)

    def stored(self, record: BatchRecord) -> None:
        """Tells of a batch that is safe."""
        task = self._progress.tasks[self._task]
        rows = task.completed + record.rows_received
        self._progress.update(
            self._task,
            completed=rows,
            batches=task.fields["batches"] + 1,
            refused=task.fields["refused"] + record.rows_refused,
            duplicates=task.fields["duplicates"] + record.rows_duplicate,
            rate=rows / max(task.elapsed or 0, 1e-3),
        )


class Searching(_Live):
    """A bar that lives while a search goes on: candidates done, the best so far, the time left."""

    def __init__(self, console: Console) -> None:
        super().__init__(
            console,
            TextColumn("candidates"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        )
        self._task = self._progress.add_task("preparing", total=None)

    def scored(self, candidate: "Scored") -> None:
        """Tells of a candidate that has its score."""
        self._progress.update(
            self._task, total=candidate.of, completed=candidate.done, description=f"best {candidate.best:.4f}"
        )

    def say(self, words: str) -> None:
        """What goes on when the last candidate is done."""
        self._progress.update(self._task, description=words)


def ledger(records: Iterable[BatchRecord]) -> Table:
    """Which batches, when, from where, how many rows, refused, duplicates, digest."""
    shown = list(records)
    table = Table(box=None, pad_edge=False, caption_justify="left")
    table.add_column("id", no_wrap=True)
    table.add_column("batch", no_wrap=True)
    for title in ("epoch", "received (UTC)", "digest"):
        table.add_column(title, overflow="fold")
    for title in ("rows", "clean", "refused", "duplicate"):
        table.add_column(title, justify="right", no_wrap=True)
    for r in shown:
        counts = (f"{count:,}" for count in (r.rows_received, *r.parts))
        moment = f"{r.received_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(str(r.id), escape(f"{r.stream} #{r.number}"), escape(r.epoch), moment, r.digest[:8], *counts)
    if shown:
        table.caption = f"from {escape(', '.join(sorted({r.source for r in shown})))}"
    return table


def refused(rows: Iterable[RefusedRow]) -> Table:
    """Why each row was refused, and what it was."""
    table = Table(box=None, pad_edge=False)
    for title in ("batch id", "row", "reason", "received"):
        table.add_column(title, overflow="fold")
    for row in rows:
        values = ", ".join("" if value is None else value for value in row.values.values())
        received = values + (f" and {row.surplus}" if row.surplus else "")
        table.add_row(str(row.batch_id), str(row.row_no), escape(row.reason), escape(received[:300]))
    return table
