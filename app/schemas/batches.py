"""Bodies that describe ingested batches and quarantined rows."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from dosel.closed import HIDDEN
from dosel.rows.validation import without_values
from dosel.usecases import UseCase


class _OfBatch(BaseModel):
    @classmethod
    def of(cls, use_case: UseCase, record: object) -> Self:
        """The record; of a closed use case without digests, which give away the label of a row of known features."""
        made = cls.model_validate(record, from_attributes=True)
        digests = cls.model_fields.keys() & {"digest", "epoch"}
        return made if use_case.expose_training_rows else made.model_copy(update=dict.fromkeys(digests, HIDDEN))


class Batch(_OfBatch):
    """An entry of the batch ledger; `rows_received` is the sum of the other three counts."""

    id: int
    stream: str = Field(description="Name of the source's sequence.", examples=["group 6"])
    epoch: str = Field(description="Changes when the source restarts its numbering; hidden for a closed use case.")
    number: int = Field(description="The batch's number within the epoch.")
    source: str
    received_at: datetime
    rows_received: int
    rows_clean: int
    rows_refused: int = Field(description="Invalid rows; see the quarantine.")
    rows_duplicate: int = Field(description="Stored before, or repeated within the batch.")
    refused_share: float = Field(description="Of the received rows, 0 to 1.")
    duplicate_share: float = Field(description="Of the received rows, 0 to 1.")
    digest: str = Field(description="SHA-256 of the rows as received; hidden for a closed use case.")


class RefusedBatch(_OfBatch):
    """A batch that was refused as a whole; nothing of it is stored."""

    stream: str
    epoch: str
    number: int = Field(description="The batch's number within the epoch.")
    source: str
    received_at: datetime
    rows_received: int
    rows_refused: int = Field(description="Invalid rows.")
    refused_share: float = Field(description="Of the received rows, 0 to 1.")
    reason: str
    first_reasons: list[str] = Field(description="Of the first invalid rows.")
    digest: str = Field(description="SHA-256 of the rows as received; hidden for a closed use case.")


class Batches(BaseModel):
    """The newest batches, and the totals of all stored batches."""

    count: int
    rows_received: int
    rows_clean: int
    rows_refused: int
    rows_duplicate: int
    batches: list[Batch]
    refused: list[RefusedBatch] = Field(description="The newest batches that were refused as a whole.")


class Refused(_OfBatch):
    """A row in quarantine."""

    batch_id: int
    stream: str
    epoch: str
    number: int = Field(description="The batch's number within the epoch.")
    row_no: int = Field(description="The row's position in the batch, from 0; the page counts from 1.")
    reason: str = Field(examples=["Slope: expected a whole number from 0 to 90 °, got 91"])
    values: dict[str, str | None] = Field(description="The received values by column; null where there was none.")
    surplus: str | None = Field(description="JSON list of the values beyond the declared columns.")

    def masked(self) -> "Refused":
        """The same without values, for a closed use case: what was expected stays."""
        return self.model_copy(
            update={
                "reason": without_values(self.reason),
                "values": {name: value and HIDDEN for name, value in self.values.items()},
                "surplus": self.surplus and HIDDEN,
            }
        )


class Quarantine(BaseModel):
    rows: list[Refused]
