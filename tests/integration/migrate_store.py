"""A process that opens a data store while other processes may open it, too.

python migrate_store.py URL race      waits for a line on its input before it starts
python migrate_store.py URL NUMBER    is killed after so many of the migrations' statements
"""

import os
import signal
import sys
from itertools import count
from typing import Any

from sqlalchemy import Engine, event

from dosel.db.engine import connect
from dosel.db.migrations import migrate

CHANGES = ("CREATE", "ALTER", "INSERT", "UPDATE")


def main(url: str, task: str) -> None:
    engine = connect(url)
    if task == "race":
        print("ready", flush=True)  # noqa: T201
        sys.stdin.readline()
    else:
        made = count(1)

        @event.listens_for(Engine, "after_cursor_execute")
        def _killed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if statement.lstrip().upper().startswith(CHANGES) and next(made) == int(task):
                os.kill(os.getpid(), signal.SIGKILL)

    migrate(engine)
    print("migrated", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
