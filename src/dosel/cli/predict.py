"""The command for predictions: a CSV goes to the running API, and its answer becomes a CSV or a Parquet file."""

import csv
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from dosel.cli import common, output
from dosel.errors import ServiceError
from dosel.usecases import UseCase, named

if TYPE_CHECKING:
    from dosel.client import ApiProblem
    from dosel.rows.answered import AnsweredRows
    from dosel.rows.csv import Header

commands = typer.Typer()

ROWS_REFUSED, TRY_AGAIN = 3, 4
"""Exit codes: the file has to be corrected; the API cannot be reached or is overloaded."""

PIECE_BYTES = 1 << 18

SUFFIXES = (".csv", ".parquet")

Moved = Callable[[str, int, int], None]
"""Shows how many bytes of how many were sent or received."""


@commands.command()
def predict(
    use_case: common.UseCaseName,
    file: Annotated[str, typer.Argument(help="A CSV with a header; - reads stdin.")],
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write, .csv or .parquet; by default stdout, as CSV.")
    ] = None,
    model: Annotated[str, typer.Option(help="A family, for its newest version; by default Production answers.")] = "",
    encoding: Annotated[str, typer.Option(help="The file's encoding; by default UTF-8, or UTF-16 by its mark.")] = "",
) -> None:
    """Predict the rows of a CSV with the running API; the output has the file's columns, prediction, label and
    probabilities.

    Nothing is predicted if a row is invalid. Exit codes: 3 if rows were refused, 4 if the API cannot be reached, has
    no model yet or is overloaded, 2 for wrong arguments, 1 for anything else.
    """
    named(use_case)
    if out is not None and out.suffix not in SUFFIXES:
        raise typer.BadParameter(f"{out}: write a name that ends in {' or '.join(SUFFIXES)}")
    settings = common.load_settings()
    from dosel.client import ApiProblem, Client
    from dosel.rows.answered import beside

    title = "stdin" if file == "-" else file
    with ExitStack() as opened:
        moved = opened.enter_context(_progress())
        content = opened.enter_context(_in_utf_8(file, encoding))
        size = content.stat().st_size
        client = opened.enter_context(Client(settings.api_url, key=settings.own_key))
        sent = _sent(content, size, moved)
        try:
            with client.predict_csv(use_case, sent, size, model or None) as answer, TemporaryFile() as spool:
                spool.writelines(_received(answer.pieces, answer.size, moved))
                _write(beside(content, _header(content, named(use_case)), spool), out)
        except ApiProblem as problem:
            moved("", 0, 0)
            for line in _explained(problem, title, content, named(use_case)):
                output.note(line)
            raise typer.Exit(_exit_code(problem)) from None
        except ServiceError as error:
            output.note(f"dosel: {error}")
            raise typer.Exit(TRY_AGAIN) from None
    where = f"{out}: " if out else ""
    output.note(f"{where}answered by {answer.model} version {answer.version}, request {answer.request_id}")


def _exit_code(problem: "ApiProblem") -> int:
    if problem.status in (408, 429, 503):
        return TRY_AGAIN
    return ROWS_REFUSED if problem.status in (400, 413, 422) else 1


def _explained(problem: "ApiProblem", title: str, content: Path, use_case: UseCase) -> Iterator[str]:
    """A line for each refused cell: its place in the file, what is there, and what to write."""
    rows = {error["row"] for error in problem.errors if error.get("row")}
    if not rows:
        hint = "; split the file, or raise DOSEL_MAX_BATCH_BYTES of the API" if problem.status == 413 else ""
        yield f"{title}: {problem.detail}{hint}"
        return
    from dosel.rows.validation import MAX_INVALID_ROWS

    header = _header(content, use_case)
    lines = _lines(content, header.delimiter, rows)
    for error in problem.errors:
        place = header.places.get(error["field"] or "")
        column = "" if place is None else f", column {header.names[place]}"
        place_in_file = f"row {error['row']}, line {lines.get(error['row'], '?')}{column}"
        yield f"{title}: {place_in_file}: got {error['got']}; write {error['expected']}"
    more = "these are the first" if len(rows) >= MAX_INVALID_ROWS else "there are"
    yield f"nothing was predicted; {more} {len(rows)} refused rows (rows count from 1, without the header)"


def _header(content: Path, use_case: UseCase) -> "Header":
    from dosel.rows.csv import MAX_HEADER_BYTES, read_header

    with content.open("rb") as opened:
        return read_header(use_case.features, opened.read(MAX_HEADER_BYTES))


def _lines(content: Path, delimiter: str, rows: Set[int]) -> dict[int, int]:
    """The line on which each of these rows begins: a row may span several, and empty lines are not rows."""
    found: dict[int, int] = {}
    with content.open(encoding="utf-8-sig", newline="") as opened, suppress(csv.Error):
        reader, row, line = csv.reader(opened, delimiter=delimiter), -1, 1
        for values in reader:
            row += bool(values)
            if values and row in rows:
                found[row] = line
            if len(found) == len(rows):
                break
            line = reader.line_num + 1
    return found


@contextmanager
def _in_utf_8(file: str, encoding: str) -> Iterator[Path]:
    """A file on disk with the content in UTF-8; stdin is kept there, since the API waits only so long for a body."""
    from dosel.rows import encodings

    with ExitStack() as kept:
        path = Path(file)
        if file == "-":
            spool = kept.enter_context(NamedTemporaryFile(prefix="dosel-stdin-"))
            shutil.copyfileobj(sys.stdin.buffer, spool)
            spool.flush()
            path = Path(spool.name)
        try:
            encoding = encoding or (encodings.UTF_16 if encodings.is_marked_utf_16(path) else "")
            if encoding:
                converted = kept.enter_context(NamedTemporaryFile(prefix="dosel-utf-8-"))
                encodings.write_utf_8(path, encoding, converted)
                converted.flush()
                path = Path(converted.name)
        except OSError as error:
            raise typer.BadParameter(f"{file} cannot be read: {error.strerror}") from None
        except (LookupError, UnicodeError) as error:
            raise typer.BadParameter(f"{file} cannot be read as {encoding}: {error}") from None
        yield path


@contextmanager
def _progress() -> Iterator[Moved]:
    """A bar on stderr, if that is a terminal."""
    from dosel.terminal import Bar, Bars

    with Bars(Console(stderr=True)) as bars:

        def moved(what: str, done: int, of: int) -> None:
            text = "waiting for the answer" if done >= of else f"{done / 1e6:,.1f} of {of / 1e6:,.1f} MB"
            bars.show([Bar(what, text, done, of)] if what else [])

        yield moved


def _sent(file: Path, size: int, moved: Moved) -> Iterator[bytes]:
    sent = 0
    with file.open("rb") as opened:
        while piece := opened.read(PIECE_BYTES):
            yield piece
            sent += len(piece)
            moved("sending", sent, size)


def _received(pieces: Iterable[bytes], size: int, moved: Moved) -> Iterator[bytes]:
    received = 0
    for piece in pieces:
        yield piece
        received += len(piece)
        moved("receiving", received, size)


def _write(answered: "AnsweredRows", out: Path | None) -> None:
    """Write the answers to stdout or to a file, which appears when it is whole."""
    if out is None:
        with TemporaryFile() as spool:
            answered.write_csv(spool)
            spool.seek(0)
            for piece in iter(partial(spool.read, PIECE_BYTES), b""):
                output.write_bytes(piece)
        return
    try:
        with NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}-", delete=False) as half:
            try:
                (answered.write_parquet if out.suffix == ".parquet" else answered.write_csv)(half)
            except BaseException:
                Path(half.name).unlink()
                raise
        os.replace(half.name, out)
    except OSError as error:
        output.note(f"dosel: {out} cannot be written: {error.strerror}")
        raise typer.Exit(1) from None
