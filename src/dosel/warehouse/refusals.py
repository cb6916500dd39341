"""Batches that were refused as a whole: a line for each, with its event."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

from dosel.db import chain
from dosel.db.tables import REFUSED_BATCHES
from dosel.warehouse import events
from dosel.warehouse.events import Event
from dosel.warehouse.records import RefusedBatch, as_refused_batch

if TYPE_CHECKING:
    from dosel.sources.base import Batch

FIRST = 5
"""Reasons that are kept of a refused batch."""


def add(
    connection: Connection,
    use_case: str,
    batch: "Batch",
    epoch: str,
    refused: Mapping[int, str],
    reason: str,
    digest: str,
) -> None:
    """Add a line and its event, unless the same rows were refused before under the same number."""
    # From 1, as people count.
    first = [f"row {position + 1}: {why}"[:500] for position, why in list(refused.items())[:FIRST]]
    event = Event(
        incident=f"batch refused {use_case} {batch.number} {digest}",
        use_case=use_case,
        kind="batch refused",
        what=f"{use_case}: batch {batch.number} of {batch.stream} was refused as a whole",
        evidence=f"{reason}. {'; '.join(first)} (from {batch.source})",
        command=f"dosel batches {use_case}",
        place=f"page/data?use_case={use_case}",
    )
    known = (
        (REFUSED_BATCHES.c.use_case == use_case)
        & (REFUSED_BATCHES.c.stream == batch.stream)
        & (REFUSED_BATCHES.c.epoch == epoch)
        & (REFUSED_BATCHES.c.number == batch.number)
        & (REFUSED_BATCHES.c.digest == digest)
    )
    if connection.execute(select(REFUSED_BATCHES.c.id).where(known)).first() is not None:
        return
    line = {
        "use_case": use_case,
        "stream": batch.stream,
        "epoch": epoch,
        "number": batch.number,
        "source": batch.source,
        "received_at": datetime.now(UTC).replace(tzinfo=None),
        "rows_received": len(batch.rows),
        "rows_refused": len(refused),
        "reason": reason,
        "first_reasons": json.dumps(first, ensure_ascii=False),
        "digest": digest,
    }
    chain.add(connection, REFUSED_BATCHES, line)
    events.add(connection, event)


def of_use_case(connection: Connection, use_case: str) -> list[RefusedBatch]:
    """The refused batches of a use case, oldest first."""
    query = select(REFUSED_BATCHES).where(REFUSED_BATCHES.c.use_case == use_case).order_by(REFUSED_BATCHES.c.id)
    return [as_refused_batch(row) for row in connection.execute(query).mappings()]
