"""Bodies that describe ingested batches and quarantined rows."""

from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    pass


class Batch(BaseModel):
    """A line of the batch ledger; `rows_received` is the sum of the other three counts."""

    id: int
    stream: str = Field(description="Which of the source's sequences.", examples=["group 6"])
    epoch: str = Field(description="Changes when the source starts its numbering over.")
    number: int = Field(description="Its number within the epoch.")
    source: str
    received_at: datetime
    rows_received: int
    rows_clean: int
    rows_refused: int = Field(description="Not acceptable: see the quarantine.")
    rows_duplicate: int = Field(description="Stored before, or repeated within the batch.")
    digest: str = Field(description="SHA-256 of the rows as received.")


class Batches(BaseModel):
    """The newest batches, and the totals of all."""

    count: int
    rows_received: int
    rows_clean: int
    rows_refused: int
    rows_duplicate: int
    batches: list[Batch]


class Refused(BaseModel):
    """A row in quarantine."""

    batch_id: int
    stream: str
    epoch: str
    number: int = Field(description="The batch's number within the epoch.")
    row_no: int = Field(description="Its position in the batch, from 0.")
    reason: str = Field(examples=["Slope: a whole number from 0 to 90 ° expected, got '91'"])
    values: dict[str, str | None] = Field(description="What was received, by column; null where there was nothing.")
    surplus: str | None = Field(description="JSON list of what it holds beyond the declared columns.")


class Quarantine(BaseModel):
    rows: list[Refused]
