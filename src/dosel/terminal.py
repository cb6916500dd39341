"""Terminal output: progress bars for batches and searches; tables of batches, refused rows, health and events."""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from dosel.warehouse.events import StoredEvent
from dosel.warehouse.records import BatchRecord, RefusedBatch, RefusedRow
from dosel.wording import NEEDS_LABELS, NO_CONTEXT, NOTHING_PROMISED

if TYPE_CHECKING:
    from dosel.monitor.context import Context
    from dosel.monitor.health import Health
    from dosel.training.candidates import ScoredCandidate


@dataclass(frozen=True)
class Bar:
    """A line about running work: title, text, and how much of it is done (`of` is None if the total is unknown)."""

    title: str
    text: str
    done: int = 0
    of: int | None = None


@dataclass
class Tally:
    """Counts of stored batches and their rows."""

    batches: int = 0
    rows: int = 0
    refused: int = 0
    duplicates: int = 0

    def add(self, record: BatchRecord) -> None:
        self.batches += 1
        self.rows += record.rows_received
        self.refused += record.rows_refused
        self.duplicates += record.rows_duplicate

    def describe(self, rows_per_second: float | None) -> str:
        rate = f"{rows_per_second:,.0f} rows/s  " if rows_per_second is not None else ""
        batches = f"{self.batches} batch{'' if self.batches == 1 else 'es'}"
        left_out = f"{self.refused:,} refused  {self.duplicates:,} duplicates"
        return f"{batches}  {self.rows:,} rows  {rate}{left_out}"


class Bars:
    """Live lines at the bottom of a terminal, one for each `Bar`; other output appears above them.

    A context manager. Nothing is drawn to a file or a pipe.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            _Share(bar_width=20),
            TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True)),
            _Left(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, bars: Iterable[Bar]) -> None:
        """Draw these bars. A bar keeps its position and its clock while a bar with its title is drawn."""
        wanted = {bar.title: bar for bar in bars}
        for title in self._tasks.keys() - wanted.keys():
            self._progress.remove_task(self._tasks.pop(title))
        for title, bar in wanted.items():
            if title not in self._tasks:
                self._tasks[title] = self._progress.add_task(escape(title), total=bar.of, text=bar.text)
            self._progress.update(self._tasks[title], completed=bar.done, total=bar.of, text=bar.text)
        self._progress.refresh()


class _Share(BarColumn):
    """A bar if the total is known, otherwise nothing."""

    def render(self, task: Task) -> Any:
        return super().render(task) if task.total is not None else Text()


class _Left(TimeRemainingColumn):
    """The time left if the total is known, otherwise nothing."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total is not None and not task.finished else Text()


class _Live:
    """Bars for work in this process, with dosel's log lines above them. A context manager."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(console)
        self._handler = RichHandler(console=console, show_time=False, show_level=False, show_path=False)

    def __enter__(self) -> Self:
        log = logging.getLogger("dosel")
        log.addHandler(self._handler)
        log.setLevel(logging.INFO)
        self._bars.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.__exit__()
        logging.getLogger("dosel").removeHandler(self._handler)


class Pulling(_Live):
    """A live line while batches are pulled: rows, rows per second, refused rows."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._tally = Tally()
        self._began = time.monotonic()
        self._bars.show([Bar("pulling", "")])

    def stored(self, record: BatchRecord) -> None:
        """Show a batch that was stored."""
        self._tally.add(record)
        rate = self._tally.rows / max(time.monotonic() - self._began, 1e-3)
        self._bars.show([Bar("pulling", self._tally.describe(rate))])


class Searching(_Live):
    """A bar while a search runs: candidates scored, the best score, the time left."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bars.show([Bar("preparing", "")])

    def scored(self, candidate: "ScoredCandidate") -> None:
        """Show a candidate that was scored."""
        self._bars.show([searching("search", candidate.done, candidate.of, candidate.best)])

    def say(self, words: str) -> None:
        """Show what happens after the last candidate."""
        self._bars.show([Bar(words, "")])


def searching(title: str, done: int, of: int, best: float) -> Bar:
    """The bar of a search: candidates scored, and the best score."""
    return Bar(title, f"{done}/{of}  best {best:.4f}", done, of)


def ledger(records: Iterable[BatchRecord]) -> Table:
    """A table of the batch ledger."""
    batches = list(records)
    table = Table(box=None, pad_edge=False, caption_justify="left")
    table.add_column("id", no_wrap=True)
    table.add_column("batch", no_wrap=True)
    for title in ("epoch", "received (UTC)", "digest"):
        table.add_column(title, overflow="fold")
    for title in ("rows", "clean", "refused", "duplicate"):
        table.add_column(title, justify="right", no_wrap=True)
    for r in batches:
        counts = (f"{r.rows_received:,}", f"{r.rows_clean:,}")
        left_out = (_share(r.rows_refused, r.refused_share), _share(r.rows_duplicate, r.duplicate_share))
        moment = f"{r.received_at:%Y-%m-%d %H:%M:%S}"
        named = (str(r.id), escape(f"{r.stream} #{r.number}"), escape(r.epoch[:8]))
        table.add_row(*named, moment, r.digest[:8], *counts, *left_out)
    if batches:
        table.caption = f"from {escape(', '.join(sorted({r.source for r in batches})))}"
    return table


def _share(count: int, share: float) -> str:
    return f"{count:,} ({share:.1%})" if count else "0"


def refused_batches(batches: Iterable[RefusedBatch]) -> Table:
    """A table of the batches that were refused as a whole."""
    table = Table(box=None, pad_edge=False, title="refused as a whole", title_justify="left", title_style="bold")
    table.add_column("batch", no_wrap=True)
    for title in ("epoch", "received (UTC)", "digest", "invalid rows", "why"):
        table.add_column(title, overflow="fold")
    for b in batches:
        invalid = f"{b.rows_refused:,} of {b.rows_received:,} ({b.refused_share:.1%})"
        why = escape(f"{b.reason}. {'; '.join(b.first_reasons[:2])}")
        moment = f"{b.received_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(escape(f"{b.stream} #{b.number}"), escape(b.epoch[:8]), moment, b.digest[:8], invalid, why)
    return table


def events_table(events: Iterable[StoredEvent]) -> Table:
    """A table of events, with their evidence, the command to type, and how far their delivery is."""
    table = Table(box=None, pad_edge=False)
    for title in ("id", "at (UTC)", "kind"):
        table.add_column(title, no_wrap=True)
    table.add_column("what, evidence, command", overflow="fold")
    table.add_column("delivered", overflow="fold")
    for event in events:
        text = f"[bold]{escape(event.what)}[/]\n{escape(event.evidence)}\n[dim]$ {escape(event.command)}[/]"
        delivered = "\n".join(escape(attempt.in_words) for attempt in event.deliveries) or "–"
        table.add_row(str(event.id), f"{event.at:%Y-%m-%d %H:%M:%S}", event.kind, text, delivered)
    return table


def refused(rows: Iterable[RefusedRow]) -> Table:
    """A table of refused rows, with reasons."""
    table = Table(box=None, pad_edge=False)
    for title in ("batch id", "row", "reason", "received"):
        table.add_column(title, overflow="fold")
    for row in rows:
        values = ", ".join("" if value is None else value for value in row.values.values())
        received = values + (f" and {row.surplus}" if row.surplus else "")
        # From 1, as the errors of a CSV count; the ledger counts from 0.
        table.add_row(str(row.batch_id), str(row.row_no + 1), escape(row.reason), escape(received[:300]))
    return table


def health_table(health: "Health") -> Table:
    """A table of the metrics of the version in Production: promised, live with bounds, and state."""
    title = f"{health.use_case}: version {health.version} is {health.state}, {health.labels:,} labelled rows"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for column in ("metric", "promised", "live", "at least", "at most", "rows", "state"):
        table.add_column(
            column, no_wrap=column != "metric", justify="left" if column in ("metric", "state") else "right"
        )
    for finding in health.findings:
        live, promised = finding.live, finding.promised
        figures = (promised.rate if promised and promised.total else None, live.rate if live.total else None)
        bounds = (finding.low, finding.high) if live.total else (None, None)
        cells = ("–" if value is None else f"{value:.4f}" for value in (*figures, *bounds))
        state = NOTHING_PROMISED if promised and promised.total and not promised.correct else finding.state
        table.add_row(escape(finding.name), *cells, f"{live.total:,}", state)
    captions = [str(health.coverage)]
    if health.harmed_since is not None:
        captions.append(f"harm proven {health.harmed_since:%Y-%m-%d %H:%M:%S} UTC; what to do: {health.remedy}")
    table.caption, table.caption_justify = "\n".join(captions), "left"
    return table


def context_table(context: "Context | None") -> Table:
    """A table of the features that changed most since the training, and what else is known without labels."""
    table = Table(box=None, pad_edge=False, title="without labels", title_justify="left", title_style="bold")
    table.caption_justify = "left"
    table.add_column("feature", overflow="fold")
    table.add_column("training rows → answered rows", overflow="fold")
    for column in ("effect", "by chance", "outside"):
        table.add_column(column, justify="right", no_wrap=True)
    if context is None:
        table.caption = NO_CONTEXT
        return table
    for feature in context.features:
        figures = (f"{feature.effect:.2f}", f"{feature.by_chance:.2f}", f"{feature.outside:.1%}")
        table.add_row(escape(feature.title), escape(feature.change or "not shown"), *figures)
    estimate, test = context.estimate, context.two_sample
    captions = [f"{context.answers:,} answers, {context.first:%Y-%m-%d %H:%M} to {context.last:%Y-%m-%d %H:%M} UTC"]
    if estimate.accuracy is None:
        captions.append(f"estimated accuracy: {estimate.refused}")
    else:
        captions.append(f"estimated accuracy {estimate.accuracy:.3f} ({estimate.low:.3f} to {estimate.high:.3f})")
    if test is None or context.outside is None:
        captions.append(f"comparison with training rows: {context.unknown}")
    else:
        captions.append(
            f"a classifier tells answered rows from training rows with AUC {test.auc:.2f} (0.5: not at all), "
            f"p = {test.p_value:.2f}; {context.outside:.1%} of the rows have a value that no training row has"
        )
    table.caption = escape("\n".join([*captions, NEEDS_LABELS]))
    return table
