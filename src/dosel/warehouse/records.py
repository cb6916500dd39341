"""Records of the batch ledger, of refused batches and of refused rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import RowMapping


@dataclass(frozen=True)
class BatchRecord:
    """An entry of the batch ledger. `rows_received` is the sum of the other three counts."""

    id: int
    stream: str
    epoch: str
    number: int
    source: str
    received_at: datetime
    rows_received: int
    rows_clean: int
    rows_refused: int
    rows_duplicate: int
    digest: str

    @property
    def refused_share(self) -> float:
        """Of the received rows, 0 to 1."""
        return self.rows_refused / max(self.rows_received, 1)

    @property
    def duplicate_share(self) -> float:
        """Of the received rows, 0 to 1."""
        return self.rows_duplicate / max(self.rows_received, 1)

    @property
    def parts(self) -> tuple[int, int, int]:
        """Clean, refused, duplicate: they add up to what was received."""
        return self.rows_clean, self.rows_refused, self.rows_duplicate


def counted(records: Sequence[BatchRecord]) -> dict[str, int]:
    """Row totals of the batches: received, clean, refused, duplicate."""
    return {
        "received": sum(record.rows_received for record in records),
        "clean": sum(record.rows_clean for record in records),
        "refused": sum(record.rows_refused for record in records),
        "duplicate": sum(record.rows_duplicate for record in records),
    }


def in_words(records: Sequence[BatchRecord]) -> str:
    """The rows of batches together, as "1,162 rows received, 1,150 clean, 12 refused, 0 duplicate"."""
    received, *parts = counted(records).items()
    return ", ".join([f"{received[1]:,} rows received", *(f"{count:,} {name}" for name, count in parts)])


@dataclass(frozen=True)
class RefusedBatch:
    """A batch that was refused as a whole; nothing of it is stored.

    `reason` is a sentence; `first_reasons` are the first rows' reasons.
    """

    id: int
    stream: str
    epoch: str
    number: int
    source: str
    received_at: datetime
    rows_received: int
    rows_refused: int
    reason: str
    first_reasons: tuple[str, ...]
    digest: str

    @property
    def refused_share(self) -> float:
        """Of the received rows, 0 to 1."""
        return self.rows_refused / max(self.rows_received, 1)


@dataclass(frozen=True)
class RefusedRow:
    """A row in quarantine: where it came, why it is not clean, and its values as received.

    `surplus` is the JSON list of what it holds beyond the declared columns.
    """

    batch_id: int
    stream: str
    epoch: str
    number: int
    row_no: int
    reason: str
    values: dict[str, str | None]
    surplus: str | None


def as_record(row: RowMapping) -> BatchRecord:
    values = {name: row[name] for name in BatchRecord.__dataclass_fields__}
    return BatchRecord(**values | {"received_at": row["received_at"].replace(tzinfo=UTC)})


def as_refused_batch(row: RowMapping) -> RefusedBatch:
    values = {name: row[name] for name in RefusedBatch.__dataclass_fields__}
    reasons, moment = tuple(json.loads(row["first_reasons"])), row["received_at"].replace(tzinfo=UTC)
    return RefusedBatch(**values | {"received_at": moment, "first_reasons": reasons})


def refused_row(columns: Sequence[str], row: Sequence[Any]) -> RefusedRow:
    batch_id, row_no, reason, stream, epoch, number, *values, surplus = row
    return RefusedRow(batch_id, stream, epoch, number, row_no, reason, dict(zip(columns, values, strict=True)), surplus)
