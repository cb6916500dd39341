"""A JSON list, read piece by piece: a large list of other values than rows could fill the memory.

No step takes long, since all other threads wait while Python decodes, copies or frees a large text.
"""

import codecs
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import msgspec

from dosel.rows.validation import InvalidRows, InvalidValue, UnreadableRows, describe

CHUNK_ROWS = 256
"""Most items that `chunks` returns at once."""

PART_BYTES = 1 << 17
"""Bytes of a list, about, that `parts` returns at once."""

WINDOW = 1 << 16
"""Characters of a list that `chunks` reads at a time; no row may be longer, without the blanks around it."""

LONGEST_ROW_BYTES = 4 * WINDOW

LONGEST_TOKEN = 16
"""An error so many characters before a window's end may mean only that the window cuts a literal or an escape."""

_DECODER = json.JSONDecoder()
_BLANKS = re.compile(r"[ \t\n\r]*")
_LIST_OF_BYTES = re.compile(rb"[ \t\n\r]*\[[ \t\n\r]*")
_ROW_END = re.compile(rb"\}[ \t\n\r]*,")


def parts(body: IO[bytes]) -> Iterator[bytes]:
    """A JSON list of rows as smaller lists. If the list ends with a comma, so does its last
    part, or this part is empty.

    The list is cut at braces. A brace within a text gives a part that is not JSON.

    Raises:
        DecodeError: it is cut elsewhere than between rows, or it is no list.
    """
    longest = PART_BYTES + LONGEST_ROW_BYTES
    rest = body.read(longest)
    if not (found := _LIST_OF_BYTES.match(rest)):
        raise msgspec.DecodeError("no list, or one after a byte order mark")
    rest = rest[found.end() :]
    while len(rest := rest + body.read(longest - len(rest))) == longest:
        if not (cut := _ROW_END.search(rest, PART_BYTES)):
            raise msgspec.DecodeError("a list of other values than rows, or of very long rows")
        yield b"[%b}]" % rest[: cut.start()]
        rest = rest[cut.end() :]
    yield b"[" + rest


def chunks(body: IO[bytes]) -> Iterator[list[Any]]:
    """The items of a JSON list in small lists.

    Raises:
        UnreadableRows: the body is not JSON in UTF-8, or an item is longer than a window.
        InvalidRows: it is no list.
    """
    text = _Text(body)
    if text.next() != "[":
        raise InvalidRows([InvalidValue(None, "a JSON list of rows", text.described())])
    text.place += 1
    chunk: list[Any] = []
    separator = ","
    if text.next() == "]":
        text.place += 1
        separator = "]"
    while separator != "]":
        if (item := text.item()) is None:
            yield chunk
            chunk = []
            text.move()
            continue
        chunk.append(item[0])
        if len(chunk) == CHUNK_ROWS:
            yield chunk
            chunk = []
        if (separator := text.next()) not in (",", "]"):
            raise text.error("Expecting ',' delimiter", text.place)
        text.place += 1
        text.next()
    if text.next():
        raise text.error("Extra data", text.place)
    yield chunk


@contextmanager
def decoding() -> Iterator[None]:
    """Turn the errors of a JSON decoder, other than its JSONDecodeError, into UnreadableRows."""
    try:
        yield
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise UnreadableRows("not JSON: it is nested too deeply") from None
    except ValueError:
        raise UnreadableRows("not JSON: a number has too many digits") from None


class _Text:
    """A text of which a window is in memory.

    Attributes:
        window: the text that was read, without what `move` has forgotten.
        place: the index in the window of the first character that was not used.
    """

    def __init__(self, body: IO[bytes]) -> None:
        self.window, self.place = "", 0
        self._body = body
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._bytes = 0
        self._is_last = False
        # The position in the body of the window's first character.
        self._line, self._column = 1, 1
        self.move()

    def move(self) -> None:
        """Forget the characters before `place`, and read until the window is full or the body ends."""
        passed, self.window, self.place = self.window[: self.place], self.window[self.place :], 0
        self._line, self._column = self._line_and_column(passed)
        while len(self.window) < WINDOW and not self._is_last:
            self.window += self._read(WINDOW - len(self.window))

    def next(self) -> str:
        """Pass the blanks; return the next character, or "" at the end."""
        while True:
            found = _BLANKS.match(self.window, self.place)
            assert found is not None
            self.place = found.end()
            if self.place < len(self.window):
                return self.window[self.place]
            if self._is_last:
                return ""
            self.move()

    def item(self) -> tuple[Any] | None:
        """The value at `place`; None if the window ends within the value, and is to be moved.

        Raises:
            UnreadableRows: it is not JSON, or longer than a window.
        """
        is_fresh = self.place == 0
        try:
            with decoding():
                value, end = _DECODER.raw_decode(self.window, self.place)
            # A number may go on: 1 may be the beginning of 1e+5.
            if self._is_last or end < len(self.window) - len("e+"):
                self.place = end
                return (value,)
        except json.JSONDecodeError as error:
            at_end = error.pos >= len(self.window) - LONGEST_TOKEN or error.msg.startswith("Unterminated")
            if self._is_last or (is_fresh and not at_end):
                raise self.error(error.msg, error.pos) from None
        if is_fresh:
            raise UnreadableRows(f"not JSON of rows: one of them is longer than {WINDOW:,} characters")
        return None

    def described(self) -> str:
        """The value at `place`, for an error message."""
        if not self._is_last:
            return f"more than {len(self.window):,} characters that begin no list"
        item = self.item()
        assert item is not None
        if self.next():
            raise self.error("Extra data", self.place)
        return describe(item[0])

    def error(self, message: str, place: int) -> UnreadableRows:
        """An error at a place of the window."""
        line, column = self._line_and_column(self.window[:place])
        return UnreadableRows(f"not JSON: {message}, at line {line}, column {column}")

    def _line_and_column(self, passed: str) -> tuple[int, int]:
        """The position after these characters of the window."""
        if not (lines := passed.count("\n")):
            return self._line, self._column + len(passed)
        return self._line + lines, len(passed) - passed.rfind("\n")

    def _read(self, size: int) -> str:
        read = self._body.read(size)
        self._is_last = not read
        begin = self._bytes - len(self._decoder.getstate()[0])
        self._bytes += len(read)
        try:
            return self._decoder.decode(read, final=self._is_last)
        except UnicodeDecodeError as error:
            place = begin + error.start + 1
            raise UnreadableRows(f"not JSON in UTF-8: {error.reason} at byte {place}") from None
