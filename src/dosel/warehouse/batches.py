"""Batches, stored once each: ledger row, raw rows, clean rows and quarantine in one transaction."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sqlalchemy import Connection, Engine, RowMapping, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from dosel.errors import WarehouseError
from dosel.rows import row_keys
from dosel.sources import Batch
from dosel.usecases import UseCase
from dosel.warehouse.engine import transaction
from dosel.warehouse.tables import BATCHES, WRITERS, UseCaseTables, create, tables_of

_KEYS_PER_QUERY = 500


@dataclass(frozen=True)
class BatchRecord:
    """A line of the batch ledger. `rows_received` is the sum of the other three counts."""

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


class BatchStore:
    """The tables of one use case and its part of the batch ledger."""

    def __init__(self, engine: Engine, use_case: UseCase) -> None:
        self._engine = engine
        self._use_case = use_case
        self._tables: UseCaseTables = tables_of(use_case)
        with transaction(engine) as connection:
            create(connection, BATCHES, WRITERS, self._tables.raw, self._tables.clean, self._tables.quarantine)
        self._turn = select(WRITERS).where(WRITERS.c.use_case == use_case.name)
        self._join_the_queue()

    def store(self, batch: Batch, accepted: pd.DataFrame, refused: dict[int, str]) -> BatchRecord | None:
        """Stores a batch whole, or not at all.

        Args:
            accepted: acceptable rows in canonical types with the target, indexed by position in the batch.
            refused: the reason for each other position.

        Returns:
            The line of the ledger, or None if this batch was stored before.

        Raises:
            WarehouseError: the data store failed, or another batch with a row of this one was stored meanwhile.
        """
        keys = row_keys(self._use_case, accepted)
        try:
            with transaction(self._engine) as connection:
                connection.execute(self._turn.with_for_update())
                batch_id = self._open(connection, batch)
                fresh = self._fresh(connection, keys)
                self._insert(connection, batch_id, batch.rows, accepted[fresh], keys[fresh], refused)
                counts = {
                    "rows_clean": int(fresh.sum()),
                    "rows_refused": len(refused),
                    "rows_duplicate": int((~fresh).sum()),
                }
                connection.execute(update(BATCHES).where(BATCHES.c.id == batch_id).values(counts))
                row = connection.execute(select(BATCHES).where(BATCHES.c.id == batch_id)).mappings().one()
                return _record(row)
        except _StoredBefore:
            return None
        except IntegrityError as error:
            raise WarehouseError(
                f"batch {batch.number} of {batch.stream}: refused by the data store ({error.orig}); "
                "if another batch stored the same row just now, try again"
            ) from error

    def records(self) -> list[BatchRecord]:
        """The ledger of this use case, oldest first."""
        query = select(BATCHES).where(BATCHES.c.use_case == self._use_case.name).order_by(BATCHES.c.id)
        with transaction(self._engine) as connection:
            return [_record(row) for row in connection.execute(query).mappings()]

    def clean(self) -> pd.DataFrame:
        """All accepted rows: `batch_id`, `row_key`, the features (float64 and text) and the target (int64)."""
        table = self._tables.clean
        columns = [table.c[name] for name in ("batch_id", "row_key", *self._use_case.columns)]
        with transaction(self._engine) as connection:
            data = pd.read_sql(select(*columns).order_by(table.c.batch_id, table.c.row_no), connection)
        return data.astype({self._use_case.target.name: "int64"})

    def _join_the_queue(self) -> None:
        """Makes the row that writers lock, in a transaction of its own: others may be making it, too."""
        with suppress(IntegrityError), transaction(self._engine) as connection:
            if connection.execute(self._turn).first() is None:
                connection.execute(insert(WRITERS).values(use_case=self._use_case.name))

    def _open(self, connection: Connection, batch: Batch) -> int:
        """Writes the ledger row first: its unique key is what lets a batch in once."""
        values = {
            "use_case": self._use_case.name,
            "stream": batch.stream,
            "epoch": batch.epoch or self._epoch(connection, batch),
            "number": batch.number,
            "source": batch.source,
            "received_at": datetime.now(UTC).replace(tzinfo=None),
            "rows_received": len(batch.rows),
            "rows_clean": 0,
            "rows_refused": 0,
            "rows_duplicate": 0,
            "digest": hashlib.sha256(json.dumps(batch.rows).encode()).hexdigest(),
        }
        try:
            result = connection.execute(insert(BATCHES).values(values))
        except IntegrityError as error:
            raise _StoredBefore from error
        key = result.inserted_primary_key
        assert key is not None
        return int(key[0])

    def _epoch(self, connection: Connection, batch: Batch) -> str:
        """The epoch of a source that does not tell: a number lower than the last one starts a new one."""
        mine = (BATCHES.c.use_case == self._use_case.name) & (BATCHES.c.stream == batch.stream)
        last = connection.execute(select(BATCHES).where(mine).order_by(BATCHES.c.id.desc()).limit(1)).first()
        if last is None:
            return "1"
        if batch.number >= last.number:
            return str(last.epoch)
        seen = connection.scalar(select(func.count(BATCHES.c.epoch.distinct())).where(mine)) or 0
        return str(seen + 1)

    def _fresh(self, connection: Connection, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which rows are neither stored already nor a repetition within the batch."""
        column = self._tables.clean.c.row_key
        stored: set[int] = set()
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            some = [int(key) for key in keys[start : start + _KEYS_PER_QUERY]]
            stored.update(connection.scalars(select(column).where(column.in_(some))))
        known = np.fromiter(stored, dtype=np.int64, count=len(stored))
        return ~np.isin(keys, known) & ~pd.Series(keys).duplicated().to_numpy()

    def _insert(
        self,
        connection: Connection,
        batch_id: int,
        received: Sequence[Sequence[Any]],
        accepted: pd.DataFrame,
        keys: npt.NDArray[np.int64],
        refused: dict[int, str],
    ) -> None:
        def place(row_no: Any) -> dict[str, Any]:
            return {"batch_id": batch_id, "row_no": int(row_no)}

        raw = [place(i) | self._as_received(row) for i, row in enumerate(received)]
        names = [str(name) for name in accepted.columns]
        values = accepted.itertuples(index=False, name=None)
        clean = [
            place(i) | {"row_key": int(key)} | dict(zip(names, row, strict=True))
            for i, key, row in zip(accepted.index, keys, values, strict=True)
        ]
        quarantine = [place(i) | {"reason": reason} for i, reason in refused.items()]
        tables = self._tables
        for table, rows in ((tables.raw, raw), (tables.clean, clean), (tables.quarantine, quarantine)):
            if rows:
                connection.execute(insert(table), rows)

    def _as_received(self, row: Sequence[Any]) -> dict[str, str | None]:
        names = self._use_case.columns
        texts = [None if value is None else str(value) for value in row]
        texts += [None] * (len(names) - len(texts))
        surplus = json.dumps(texts[len(names) :]) if len(texts) > len(names) else None
        return dict(zip(names, texts, strict=False)) | {"surplus": surplus}


class _StoredBefore(Exception):
    """The ledger has this batch; leaves the transaction, which rolls back."""


def _record(row: RowMapping) -> BatchRecord:
    values = {name: row[name] for name in BatchRecord.__dataclass_fields__}
    return BatchRecord(**values | {"received_at": row["received_at"].replace(tzinfo=UTC)})
