"""Files that are written in one step."""

import os
import threading
from pathlib import Path


def read_at_most(file: Path, most: int) -> bytes:
    """The content of a file that somebody else may have written.

    Raises:
        OSError: there is no such file, or it has more than `most` bytes.
    """
    with file.open("rb") as source:
        content = source.read(most + 1)
    if len(content) > most:
        raise OSError(f"{file} has more than {most:,} bytes")
    return content


def replace_file(file: Path, content: bytes | str, mode: int = 0o600) -> None:
    """Write a file, and its folder if necessary, so that neither a reader nor a killed process sees half of it.

    Args:
        mode: the file's permissions; by default only its owner may read it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".half-{threading.get_native_id()}-{file.name}")
    # A killed thread with this number may have left one. A link of another user's is not followed.
    half.unlink(missing_ok=True)
    with open(os.open(half, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "wb") as target:
        os.fchmod(target.fileno(), mode)
        target.write(content.encode() if isinstance(content, str) else content)
    half.replace(file)
