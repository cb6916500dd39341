"""The one way of showing something: a table on a terminal, tab-separated values in a pipe, JSON if asked."""

import json
import math
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import date
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

READER_GONE = 141
"""The exit code when the reader of a pipe has gone, as a shell shows it for other programs (128 + SIGPIPE)."""

AsJson = Annotated[bool, typer.Option("--json", help="As JSON, one object a line.")]

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}

_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def show(
    records: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    table: Callable[[], Iterable[RenderableType]],
    *,
    as_json: bool,
    empty: str = "",
) -> None:
    """Show records to whatever reads stdout.

    Args:
        records: what JSON shows of each.
        columns: the names, in order, that tab-separated values show of each.
        table: makes what a terminal shows.
        empty: a sentence for stderr if there are no records.
    """
    if as_json:
        write_json(records)
    elif not is_terminal():
        lines = (columns, *([_cell(record.get(name)) for name in columns] for record in records))
        write("".join("\t".join(line) + "\n" for line in lines))
    elif records:
        for part in table():
            console().print(part)
    if not records and empty:
        note(empty)


LONGEST_CELL = 26
"""Most characters of a value in a column that does not wrap, where the table is wider than the terminal: a longer one,
such as the id of an Airflow run, is cut."""

NARROWEST = 20
"""Characters that a column of sentences keeps on a narrow terminal, where it takes more lines."""


def plain_table(
    titles: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    folding: Collection[str] = (),
    least: Sequence[str] = (),
    width: int | None = None,
) -> Table:
    """A table of text for a terminal.

    Args:
        folding: the columns that take more lines where the terminal is too narrow; by default the last.
        least: the columns that are left out there, the first of them first; the caption names them.
        width: characters of the terminal's line, by default those of the one that runs this.
    """
    folding = folding or titles[-1:]
    contents, space = [list(row) for row in rows], width or console().width
    # Two blanks are between columns.
    if sum(max(map(len, column)) + 2 for column in zip(titles, *contents, strict=True)) - 2 > space:
        contents = [
            [cell if title in folding else _shortened(cell) for title, cell in zip(titles, row, strict=True)]
            for row in contents
        ]
    needed = {
        title: min(longest, NARROWEST) if title in folding else longest
        for place, title in enumerate(titles)
        for longest in [max(len(title), *(len(row[place]) for row in contents), 0)]
    }
    shown = list(titles)
    for title in least:
        if sum(needed[name] + 2 for name in shown) - 2 <= space:
            break
        shown.remove(title)
    table = Table(box=None, pad_edge=False, caption_justify="left")
    for title in shown:
        fold = title in folding
        table.add_column(title, no_wrap=not fold, overflow="fold" if fold else "ellipsis")
    for row in contents:
        table.add_row(*(escape(cell) for title, cell in zip(titles, row, strict=True) if title in shown))
    if left_out := [title for title in titles if title not in shown]:
        table.caption = f"not shown on this narrow terminal: {', '.join(left_out)}; --json has all"
    return table


def _shortened(cell: str) -> str:
    return cell if len(cell) <= LONGEST_CELL else f"{cell[: LONGEST_CELL - 1]}…"


def write_json(records: Iterable[Any]) -> None:
    """Write JSON values, one a line."""
    write("".join(f"{_json(record)}\n" for record in records))


def write(text: str) -> None:
    """Write text to stdout; end quietly if its reader has gone, as after `| head`."""
    write_bytes(visible(text).encode(errors="backslashreplace"))


def line(text: str) -> None:
    """Write a line to stdout, as `write`."""
    write(f"{text}\n")


def visible(text: str) -> str:
    """The text with its control characters as escapes: received values could otherwise command the terminal."""
    return text.translate(_CONTROLS)


def write_bytes(piece: bytes) -> None:
    """Write bytes to stdout, as `write`."""
    try:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        end_quietly()


def end_quietly() -> NoReturn:
    """End the process because the reader of stdout has gone."""
    # The interpreter flushes stdout once more when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(READER_GONE)


def note(text: str) -> None:
    """A sentence for a person, on stderr, so that a program that reads stdout gets records only."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(visible(text), markup=False)


class _Terminal(Console):
    def render_str(self, text: str, **given: Any) -> Text:
        return super().render_str(visible(text), **given)

    def on_broken_pipe(self) -> None:
        end_quietly()


def console() -> Console:
    """A console on stdout."""
    return _Terminal(soft_wrap=True, highlight=False)


def is_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def has_display() -> bool:
    """Whether a person at a terminal can see a browser."""
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return is_terminal() and (sys.platform == "darwin" or bool(named))


def short(digest: str | None) -> str:
    """The beginning of a hash or an id, for a terminal."""
    return (digest or "–")[:8]


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return value.translate(_ESCAPES)
        case date():
            return value.isoformat()
        case bool() | Mapping() | list() | tuple():
            return _json(value).translate(_ESCAPES)
    return str(value)


def _json(value: Any) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, default=_plain)


def _finite(value: Any) -> Any:
    """The value with null for what JSON has no number for."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(name): _finite(part) for name, part in value.items()}
        case list() | tuple():
            return [_finite(part) for part in value]
    return _finite(asdict(value)) if is_dataclass(value) and not isinstance(value, type) else value


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)
