"""The worker process that the soak of the ingest kills: it runs the code of the DAG's task."""

import os
import time
from typing import Any

from sqlalchemy import Engine, event

from dosel.errors import AccountingError, DoselError
from dosel.pipeline import Pipeline
from dosel.settings import Settings
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.records import BatchRecord

IDLE, OPEN = 0, 1


def work(warehouse_url: str, api_url: str, group: int, acknowledged: str, state: Any, took: Any) -> None:
    """Pull until the source ends or an error occurs.

    Args:
        acknowledged: a file that gets a line for each batch as soon as it is committed.
        state: shared; `OPEN` while a batch's transaction has written something and is not committed.
        took: shared; the seconds that the last transaction was open.
    """
    opened = 0.0

    @event.listens_for(Engine, "after_cursor_execute")
    def _writing(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal opened
        if statement.startswith("INSERT INTO batches"):
            opened = time.monotonic()
            state.value = OPEN

    def on_batch(record: BatchRecord) -> None:
        state.value = IDLE
        took.value = time.monotonic() - opened
        with open(acknowledged, "a") as notes:
            notes.write(f"{record.id} {record.epoch} {record.number} {record.digest}\n")
            notes.flush()
            os.fsync(notes.fileno())

    settings = Settings(warehouse_url=warehouse_url, data_api_url=api_url, data_api_group=group, source_timeout=10)
    try:
        pipeline = Pipeline(COVERTYPE, settings)
        pipeline.ingest(pipeline.source(), on_batch)
    except AccountingError:
        raise
    except DoselError:
        # A killed database or data API fails the worker's task, which is run again.
        raise SystemExit(1) from None
