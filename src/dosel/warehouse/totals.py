"""The totals of the batch ledger, for each use case."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select

from dosel.db.tables import BATCHES, REFUSED_BATCHES


@dataclass(frozen=True)
class BatchTotals:
    """The batches of one use case, and the rows of those that are stored.

    Attributes:
        refused_batches: those that were refused as a whole.
        last_refused_share: refused rows among those of the newest batch, stored or refused; 0 to 1.
    """

    batches: int
    refused_batches: int
    rows_clean: int
    rows_refused: int
    rows_duplicate: int
    last_refused_share: float


def batch_totals(connection: Connection) -> Mapping[str, BatchTotals]:
    """The totals of every use case that received a batch, by its name."""
    parts = (BATCHES.c.rows_clean, BATCHES.c.rows_refused, BATCHES.c.rows_duplicate)
    query = select(BATCHES.c.use_case, func.count(), *map(func.sum, parts)).group_by(BATCHES.c.use_case)
    stored = {row[0]: [int(figure) for figure in row[1:]] for row in connection.execute(query)}
    query = select(REFUSED_BATCHES.c.use_case, func.count()).group_by(REFUSED_BATCHES.c.use_case)
    refused = {row[0]: int(row[1]) for row in connection.execute(query)}
    found = {}
    for name, share in _last_refused_shares(connection).items():
        batches, clean, bad, duplicate = stored.get(name, (0, 0, 0, 0))
        found[name] = BatchTotals(batches, refused.get(name, 0), clean, bad, duplicate, share)
    return found


def _last_refused_shares(connection: Connection) -> dict[str, float]:
    newest: list[Row[Any]] = []
    for table in (BATCHES, REFUSED_BATCHES):
        last = select(func.max(table.c.id)).group_by(table.c.use_case)
        newest += connection.execute(select(table).where(table.c.id.in_(last))).all()
    newest.sort(key=lambda batch: batch.received_at)
    return {batch.use_case: batch.rows_refused / max(batch.rows_received, 1) for batch in newest}
