"""Ends what another process started, once that process is gone: killed with SIGKILL, it could not do so itself.

python -m dosel.embedded.guard HOME     the input is a pipe from that process; its end is the sign
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dosel.embedded.processes import Processes

STOP_SECONDS = 60


@contextmanager
def guarded(home: Path) -> Iterator[None]:
    """Whatever is on record under `home` is ended with this block, however it or this process ends."""
    guard = subprocess.Popen(
        [sys.executable, "-m", __name__, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        guard.communicate(timeout=STOP_SECONDS)


def main(home: str) -> None:
    sys.stdin.buffer.read()
    Processes(Path(home)).stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
