"""Compares the batch ledger with the stored rows."""

from collections.abc import Iterable

from sqlalchemy import Connection, func, select

from dosel.db.tables import UseCaseTables
from dosel.warehouse.records import BatchRecord


def deviations(connection: Connection, tables: UseCaseTables, ledger: Iterable[BatchRecord]) -> list[str]:
    """Descriptions of differences; empty if raw = clean + quarantine + duplicates in every batch."""
    named = {"raw": tables.raw, "clean": tables.clean, "quarantine": tables.quarantine}
    held: dict[str, dict[int, int]] = {}
    for name, table in named.items():
        counted = select(table.c.batch_id, func.count()).group_by(table.c.batch_id)
        held[name] = {int(batch): int(count) for batch, count in connection.execute(counted)}
    wrong = []
    for record in ledger:
        has = {name: counts.pop(record.id, 0) for name, counts in held.items()}
        owed = {"raw": record.rows_received, "clean": record.rows_clean, "quarantine": record.rows_refused}
        if has != owed or sum(record.parts) != record.rows_received:
            wrong.append(
                f"batch {record.number} of {record.stream} (id {record.id}): by the ledger {record.rows_received} "
                f"received = {record.rows_clean} clean + {record.rows_refused} refused + {record.rows_duplicate} "
                f"duplicates; in the tables {', '.join(f'{name} {count}' for name, count in has.items())}"
            )
    for name, counts in held.items():
        for batch, count in counts.items():
            wrong.append(f"{name} has {count} rows of batch id {batch}, which is not in the ledger")
    return wrong
