"""A process that stores a batch, and prints its progress.

python store_batch.py URL stop      stops in the open transaction, everything inserted
python store_batch.py URL race      waits for a line on its input before it starts
"""

import signal
import sys

from sqlalchemy import Connection, Engine, event

from dosel.db.engine import connect
from dosel.quality import check
from dosel.sources.base import Batch
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.batches import BatchStore

ROWS = [[str(v) for v in (COVERTYPE.example | {"Elevation": 2000 + i}).values()] + ["3"] for i in range(50)]


def wait_to_be_killed(_: Connection) -> None:
    print("open", flush=True)  # noqa: T201
    signal.pause()


def main(url: str, task: str) -> None:
    engine = connect(url)
    store = BatchStore(engine, COVERTYPE)
    checked = check(COVERTYPE, ROWS, "uci")
    if task == "stop":
        event.listen(Engine, "commit", wait_to_be_killed)
    else:
        print("ready", flush=True)  # noqa: T201
        sys.stdin.readline()
    record = store.store(Batch("child", "group 6", "e1", 1, ROWS), checked.accepted, checked.refused)
    print("stored" if record else "there already", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
