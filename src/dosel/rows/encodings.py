"""The encodings of text files: which one a file is in, and its content in UTF-8."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

PIECE = 1 << 20
"""Bytes that are converted at a time."""

UTF_8, UTF_16, WESTERN = "utf-8", "utf-16", "cp1252"

_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def is_marked_utf_16(file: Path) -> bool:
    """Whether a file begins with the byte order mark of UTF-16."""
    with file.open("rb") as opened:
        return opened.read(2) in _MARKS


def guess(file: Path) -> str:
    """UTF-16 by its mark, UTF-8 if the file can be read so, otherwise Windows' extension of Latin-1."""
    if is_marked_utf_16(file):
        return UTF_16
    try:
        for _ in pieces(file, UTF_8):
            pass
    except UnicodeDecodeError:
        return WESTERN
    return UTF_8


def pieces(file: Path, encoding: str) -> Iterator[str]:
    """The text of a file, piece by piece.

    Raises:
        UnicodeDecodeError: the file is in another encoding.
    """
    with file.open("rb") as opened:
        yield from _decoded(opened, encoding)


@contextmanager
def marked_in_utf_8(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The open file itself, or a copy in UTF-8 if it begins with the mark of UTF-16.

    Raises:
        UnicodeDecodeError: what follows the mark is no UTF-16.
    """
    file.seek(0)
    marked = file.read(2) in _MARKS
    file.seek(0)
    if not marked:
        yield file
        return
    with TemporaryFile(prefix="dosel-utf-8-") as converted:
        for piece in _decoded(file, UTF_16):
            converted.write(piece.encode())
        yield converted


def write_utf_8(file: Path, encoding: str, out: IO[bytes]) -> None:
    """Write the text of a file in UTF-8.

    Raises:
        UnicodeDecodeError: the file is in another encoding.
    """
    for piece in pieces(file, encoding):
        out.write(piece.encode())


def _decoded(opened: IO[bytes], encoding: str) -> Iterator[str]:
    return codecs.iterdecode(iter(partial(opened.read, PIECE), b""), encoding)
