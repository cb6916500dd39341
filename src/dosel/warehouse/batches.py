"""Stores each batch once: ledger entry, raw rows, clean rows and quarantine in one transaction."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from sqlalchemy import BigInteger, Double, Integer, String, Table, func, insert, select
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError

from dosel.db import chain
from dosel.db.engine import reading, transaction
from dosel.db.loading import Loader, lines
from dosel.db.reading import read
from dosel.db.tables import BATCHES, WRITERS
from dosel.errors import WarehouseError
from dosel.rows.hashing import row_keys
from dosel.rows.text import as_text
from dosel.rows.validation import without_values
from dosel.sources.base import Batch
from dosel.usecases import UseCase
from dosel.warehouse import refusals
from dosel.warehouse.batch_ledger import BatchLedger
from dosel.warehouse.records import BatchRecord

_KEYS_PER_QUERY = 10_000
"""Keys as literals in one query: 200 kB, which every server accepts."""

_ARROW = {String: pa.string(), Double: pa.float64(), Integer: pa.int64(), BigInteger: pa.int64()}


class BatchStore(BatchLedger):
    """The tables of one use case and its part of the batch ledger, to write them and to read rows."""

    def __init__(self, engine: Engine, use_case: UseCase) -> None:
        super().__init__(engine, use_case)
        self._loader = Loader(engine)
        self._lock_row = select(WRITERS).where(WRITERS.c.use_case == use_case.name)
        self._create_lock_row()

    def holds(self, batch: Batch) -> bool:
        """Whether the ledger has this batch, by one short query."""
        with reading(self._engine) as connection:
            return self._stored(connection, batch, self._epoch(connection, batch))

    def store(
        self, batch: Batch, accepted: pd.DataFrame, refused: dict[int, str], text: pa.Table | None = None
    ) -> BatchRecord | None:
        """Store a batch completely, or not at all.

        Args:
            accepted: valid rows in canonical types with the target, indexed by position in the batch.
            refused: the reason for each other position.
            text: the batch's rows as `as_text` gives them, if the caller has them already.

        Returns:
            The line of the ledger, or None if this batch was stored before.

        Raises:
            WarehouseError: the data store failed, or another batch with a row of this one was stored meanwhile.
        """
        text = as_text(batch.rows, self._use_case.columns) if text is None else text
        keys = row_keys(self._use_case, accepted)
        digest = _digest(text)
        try:
            with self._loader.transaction() as connection:
                connection.execute(self._lock_row.with_for_update())
                epoch = self._epoch(connection, batch)
                if self._stored(connection, batch, epoch):
                    return None
                fresh = self._fresh(connection, keys)
                record = self._enter(connection, batch, epoch, digest, int(fresh.sum()), len(refused))
                tables = self._tables
                self._put(connection, tables.raw, record.id, np.arange(len(batch.rows)), text)
                clean = self._clean_columns(accepted[fresh], keys[fresh])
                self._put(connection, tables.clean, record.id, accepted.index[fresh].to_numpy(), clean)
                reasons = pa.table({"reason": pa.array(refused.values(), pa.string())})
                self._put(connection, tables.quarantine, record.id, np.fromiter(refused, np.int64), reasons)
                # Last: other ledgers wait for the chain until this transaction ends.
                chain.append_entry(connection, BATCHES, (record.id,))
                return record
        except IntegrityError as error:
            raise WarehouseError(
                f"batch {batch.number} of {batch.stream}: refused by the data store ({error.orig}); "
                "if another batch stored the same row just now, try again"
            ) from error

    def refuse(self, batch: Batch, refused: Mapping[int, str], reason: str, text: pa.Table | None = None) -> None:
        """Record that a batch was refused as a whole, with its event; the same batch refused again is one line.

        Args:
            refused: the reason for each refused position.
            reason: why the whole batch is refused, a sentence.
            text: the batch's rows as `as_text` gives them, if the caller has them already.
        """
        text = as_text(batch.rows, self._use_case.columns) if text is None else text
        if not self._use_case.expose_training_rows:
            # The event goes to people who may not see the rows.
            refused = {position: without_values(why) for position, why in refused.items()}
        with transaction(self._engine) as connection:
            connection.execute(self._lock_row.with_for_update())
            epoch = self._epoch(connection, batch)
            refusals.add(connection, self._use_case.name, batch, epoch, refused, reason, _digest(text))

    def clean(self, batch_id: int | None = None) -> pd.DataFrame:
        """Accepted rows: `batch_id`, `row_key`, the features (float64 and text) and the target (int64).

        Args:
            batch_id: only rows of this batch; by default all rows.
        """
        table = self._tables.clean
        columns = [table.c[name] for name in ("batch_id", "row_key", *self._use_case.columns)]
        types = {number.name: "float64" for number in self._use_case.numbers}
        types |= dict.fromkeys(("batch_id", "row_key", self._use_case.target.name), "int64")
        query = select(*columns).order_by(table.c.batch_id, table.c.row_no)
        if batch_id is not None:
            query = query.where(table.c.batch_id == batch_id)
        return read(self._engine, query, types)

    def clean_by_batch(self) -> Iterator[pd.DataFrame]:
        """The rows of `clean`, one batch after the other: only one batch is in memory."""
        for record in self.records():
            if record.rows_clean:
                yield self.clean(record.id)

    def keys(self) -> dict[int, npt.NDArray[np.int64]]:
        """The keys of the accepted rows by batch id, oldest batch first, each of shape (rows,)."""
        table, found = self._tables.clean, {}
        for record in self.records():
            if record.rows_clean:
                query = select(table.c.row_key).where(table.c.batch_id == record.id).order_by(table.c.row_no)
                found[record.id] = read(self._engine, query, {"row_key": "int64"})["row_key"].to_numpy()
        return found

    def _create_lock_row(self) -> None:
        """Create the row that writers lock, in its own transaction, since another process may create it too."""
        with suppress(IntegrityError), transaction(self._engine) as connection:
            if connection.execute(self._lock_row).first() is None:
                connection.execute(insert(WRITERS).values(use_case=self._use_case.name))

    def _stored(self, connection: Connection, batch: Batch, epoch: str) -> bool:
        named = (BATCHES.c.stream == batch.stream) & (BATCHES.c.epoch == epoch) & (BATCHES.c.number == batch.number)
        return connection.execute(select(BATCHES.c.id).where(self._mine & named)).first() is not None

    def _enter(
        self, connection: Connection, batch: Batch, epoch: str, digest: str, clean: int, refused: int
    ) -> BatchRecord:
        """Write the ledger's entry; its unique key would stop a second copy of the batch."""
        values: dict[str, Any] = {
            "stream": batch.stream,
            "epoch": epoch,
            "number": batch.number,
            "source": batch.source,
            "received_at": datetime.now(UTC),
            "rows_received": len(batch.rows),
            "rows_clean": clean,
            "rows_refused": refused,
            "rows_duplicate": len(batch.rows) - clean - refused,
            "digest": digest,
        }
        stored = values | {"use_case": self._use_case.name, "received_at": values["received_at"].replace(tzinfo=None)}
        key = connection.execute(insert(BATCHES).values(stored)).inserted_primary_key
        assert key is not None
        return BatchRecord(id=int(key[0]), **values)

    def _epoch(self, connection: Connection, batch: Batch) -> str:
        """The batch's epoch. If the source has none, a number lower than the last one starts a new epoch."""
        if batch.epoch:
            return batch.epoch
        mine = self._mine & (BATCHES.c.stream == batch.stream)
        last = connection.execute(select(BATCHES).where(mine).order_by(BATCHES.c.id.desc()).limit(1)).first()
        if last is None:
            return "1"
        if batch.number >= last.number:
            return str(last.epoch)
        seen = connection.scalar(select(func.count(BATCHES.c.epoch.distinct())).where(mine)) or 0
        return str(seen + 1)

    def _fresh(self, connection: Connection, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """A mask of the rows that are neither stored already nor repeated within the batch."""
        # Sorted, so that the server walks its index once.
        ordered = np.sort(keys)
        stored: list[int] = []
        for start in range(0, len(ordered), _KEYS_PER_QUERY):
            some = ",".join(map(str, ordered[start : start + _KEYS_PER_QUERY].tolist()))
            query = f"SELECT row_key FROM {self._tables.clean.name} WHERE row_key IN ({some})"
            stored += connection.exec_driver_sql(query).scalars()
        return ~np.isin(keys, np.array(stored, np.int64)) & ~pd.Series(keys).duplicated().to_numpy()

    def _clean_columns(self, accepted: pd.DataFrame, keys: npt.NDArray[np.int64]) -> pa.Table:
        columns: dict[str, pa.Array] = {"row_key": pa.array(keys)}
        for column in self._tables.clean.columns:
            if column.name in accepted:
                kind = _ARROW[type(column.type)]
                columns[column.name] = pa.array(accepted[column.name].to_numpy(), from_pandas=True).cast(kind)
        return pa.table(columns)

    def _put(
        self, connection: Connection, table: Table, batch_id: int, row_no: npt.NDArray[np.int64], columns: pa.Table
    ) -> None:
        """Add rows of a batch, each with its position."""
        rows = columns.add_column(0, "row_no", pa.array(row_no, pa.int64()))
        rows = rows.add_column(0, "batch_id", pa.repeat(batch_id, len(row_no)))
        self._loader.put(connection, table, rows)


def _digest(text: pa.Table) -> str:
    """SHA-256 of the rows as in the raw table, from which it can be computed again."""
    digest = hashlib.sha256()
    for part in lines(text):
        digest.update(part)
    return digest.hexdigest()
