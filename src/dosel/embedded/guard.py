"""Stops the processes that another process started when that process is gone, for instance by SIGKILL.

python -m dosel.embedded.guard HOME     standard input is a pipe from that process, which closes when it ends
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
    """Stop the processes recorded under `home` at the end of the block, however this process ends."""
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
