"""Records of the batch ledger and of refused rows."""

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
    def parts(self) -> tuple[int, int, int]:
        """Clean, refused, duplicate: they add up to what was received."""
        return self.rows_clean, self.rows_refused, self.rows_duplicate


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


def refused_row(columns: Sequence[str], row: Sequence[Any]) -> RefusedRow:
    batch_id, row_no, reason, stream, epoch, number, *values, surplus = row
    return RefusedRow(batch_id, stream, epoch, number, row_no, reason, dict(zip(columns, values, strict=True)), surplus)
