"""Reads the batch ledger and the refused rows, without pandas: a command that only shows them starts fast."""

from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Engine, select

from dosel.db.engine import reading
from dosel.db.tables import BATCHES, UseCaseTables
from dosel.errors import AccountingError
from dosel.usecases import SURPLUS, UseCase
from dosel.warehouse import refusals
from dosel.warehouse.audit import deviations
from dosel.warehouse.opening import open_tables
from dosel.warehouse.records import BatchRecord, RefusedBatch, RefusedRow, as_record, refused_row


class BatchLedger:
    """One use case's part of the batch ledger, and its tables.

    Raises:
        SchemaError: the tables do not fit the declaration.
    """

    def __init__(self, engine: Engine, use_case: UseCase) -> None:
        self._engine = engine
        self._use_case = use_case
        self._tables: UseCaseTables = open_tables(engine, use_case)

    def refusals(self) -> list[RefusedBatch]:
        """Batches that were refused as a whole, oldest first."""
        with reading(self._engine) as connection:
            return refusals.of_use_case(connection, self._use_case.name)

    def records(self) -> list[BatchRecord]:
        """The ledger of this use case, oldest first."""
        with reading(self._engine) as connection:
            return self._records(connection)

    def quarantine(self, limit: int, batch_id: int | None = None) -> list[RefusedRow]:
        """Refused rows, newest batch first; only those of `batch_id`, if given."""
        raw, refused = self._tables.raw, self._tables.quarantine
        place = (raw.c.batch_id == refused.c.batch_id) & (raw.c.row_no == refused.c.row_no)
        query = (
            select(refused, BATCHES.c.stream, BATCHES.c.epoch, BATCHES.c.number, *self._received)
            .join(BATCHES, BATCHES.c.id == refused.c.batch_id)
            .join(raw, place)
            .order_by(refused.c.batch_id.desc(), refused.c.row_no)
            .limit(limit)
        )
        if batch_id is not None:
            query = query.where(refused.c.batch_id == batch_id)
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
        return [refused_row(self._use_case.columns, tuple(row)) for row in rows]

    def audit(self) -> list[BatchRecord]:
        """Compare the numbers of stored rows with the ledger, batch by batch; return the ledger, oldest batch first.

        Raises:
            AccountingError: a batch is incomplete; the message names the batch and the numbers.
        """
        with reading(self._engine) as connection:
            records = self._records(connection)
            wrong = deviations(connection, self._tables, records)
        if wrong:
            more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise AccountingError(
                f"{self._use_case.name}: the stored rows differ from the batch ledger. {'; '.join(wrong[:3])}{more}"
            )
        return records

    @property
    def _received(self) -> list[Column[Any]]:
        """The raw table's columns of received values."""
        return [self._tables.raw.c[name] for name in (*self._use_case.columns, SURPLUS)]

    @property
    def _mine(self) -> ColumnElement[bool]:
        return BATCHES.c.use_case == self._use_case.name

    def _records(self, connection: Connection) -> list[BatchRecord]:
        query = select(BATCHES).where(self._mine).order_by(BATCHES.c.id)
        return [as_record(row) for row in connection.execute(query).mappings()]
