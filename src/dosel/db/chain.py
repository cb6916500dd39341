"""The hash chain over the ledgers: an entry for each of their rows, which carries the hash of the entry before.

A row that is changed, removed or added behind dosel's back no longer fits its entry, and an entry that is changed no
longer fits the next one. So the hash of the last entry, kept elsewhere, covers all before it
(`dosel.registry.heads`).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, Table, and_, insert, inspect, select, update

from dosel.db.tables import (
    APPROVAL_REQUESTS,
    APPROVALS,
    BATCHES,
    CHAIN,
    CHAIN_HEAD,
    ENTRY_SIGNATURES,
    MANIFESTS,
    NOTES,
    PROMOTIONS,
    REFUSED_BATCHES,
    SHADOW_ENDS,
    SHADOWS,
    VERDICTS,
)

Kind = Literal["added", "removed"]

START = "0" * 64
"""What the first entry carries instead of a hash."""

REMOVABLE = (BATCHES, REFUSED_BATCHES)
"""`dosel reset` removes their rows, with an entry for each."""

CHAINED: Mapping[str, Table] = {
    table.name: table
    for table in (
        *(PROMOTIONS, NOTES, MANIFESTS, VERDICTS, SHADOWS, SHADOW_ENDS, APPROVAL_REQUESTS, APPROVALS, ENTRY_SIGNATURES),
        *REMOVABLE,
    )
}
"""The tables whose rows have entries, by name."""


_encoded = msgspec.json.Encoder(order="sorted").encode


class _Hashed(msgspec.Struct):
    """What the hash of an entry covers. The fields are sorted, as RFC 8785 wants them; this is faster than sorting."""

    digest: str
    kind: Kind
    previous: str
    row_key: str
    sequence: int
    table_name: str


class Entry(NamedTuple):
    """`digest` is the row's; `row_key` its primary key as a JSON list; `previous` the hash of the entry before."""

    sequence: int
    kind: Kind
    table_name: str
    row_key: str
    digest: str
    previous: str
    hash: str

    def expected_hash(self) -> str:
        """SHA-256 of the entry without its hash."""
        sequence, kind, table_name, key, digest, previous, _ = self
        return hashlib.sha256(_encoded(_Hashed(digest, kind, previous, key, sequence, table_name))).hexdigest()


def add(connection: Connection, table: Table, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Insert a row of a ledger with its entry; return the row's primary key.

    Raises:
        IntegrityError: the table has a row with such a key.
    """
    key = connection.execute(insert(table).values(values)).inserted_primary_key
    assert key is not None
    append_entry(connection, table, tuple(key))
    return tuple(key)


def append_entry(connection: Connection, table: Table, key: Sequence[Any]) -> None:
    """Append an entry for a row that was inserted in this transaction.

    Other transactions that append wait until this one ends, so it comes last in a long one.
    """
    _append(connection, "added", table, connection.execute(select(table).where(_is(table, key))).mappings())


def intact(connection: Connection, table: Table, condition: ColumnElement[bool]) -> list[RowMapping]:
    """The rows of a ledger that are as their entries say, in the order of their keys."""
    rows = connection.execute(select(table).where(condition).order_by(*table.primary_key)).mappings().all()
    if not rows:
        return []
    entries = [Entry(*e) for e in connection.execute(select(CHAIN).where(CHAIN.c.table_name == table.name))]
    digests = {entry.row_key: entry.digest for entry in entries if entry.hash == entry.expected_hash()}
    return [row for row in rows if digests.get(row_key(table, row)) == sha256(content(row))]


def append_removals(connection: Connection, table: Table, condition: ColumnElement[bool]) -> None:
    """Append an entry for each row that is about to be deleted in this transaction."""
    assert table in REMOVABLE
    _append(connection, "removed", table, connection.execute(select(table).where(condition)).mappings())


def start(connection: Connection) -> None:
    """Start the chain, with an entry for each row that there is.

    Tables and columns that a later migration adds are left out.
    """
    connection.execute(insert(CHAIN_HEAD).values(id=1, sequence=0, hash=START))
    there = inspect(connection)
    for table in CHAINED.values():
        if there.has_table(table.name):
            columns = [table.c[column["name"]] for column in there.get_columns(table.name)]
            rows = connection.execute(select(*columns).order_by(*table.primary_key)).mappings()
            _append(connection, "added", table, rows)


def content(row: RowMapping) -> dict[str, str | int]:
    """A row's values by column, as its digest covers them.

    Empty values are left out, so that a new column that may be empty leaves the digests of older rows as they are.
    """
    return content_of(row.keys(), row.values())


def content_of(names: Iterable[str], values: Iterable[Any]) -> dict[str, str | int]:
    """As `content`, of a row's values in the order of the columns' names."""
    return {
        name: value if type(value) is str or type(value) is int else _value(value)
        for name, value in zip(names, values, strict=True)
        if value is not None
    }


def row_key(table: Table, row: RowMapping) -> str:
    """A row's primary key as a JSON list."""
    return canonical([row[column.name] for column in table.primary_key]).decode()


def canonical(value: Any) -> bytes:
    """JSON by RFC 8785, for values that consist of lists, texts, whole numbers and objects with ASCII names."""
    return _encoded(value)


def sha256(value: Any) -> str:
    """SHA-256 of a value as canonical JSON: 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


def _append(connection: Connection, kind: Kind, table: Table, rows: Iterable[RowMapping]) -> None:
    rows = list(rows)
    if not rows:
        return
    # Locks the row: the next one who appends waits here.
    head = connection.execute(select(CHAIN_HEAD).where(CHAIN_HEAD.c.id == 1).with_for_update()).one()
    entries, sequence, previous = [], head.sequence, head.hash
    for row in rows:
        sequence += 1
        entry = Entry(sequence, kind, str(table.name), row_key(table, row), sha256(content(row)), previous, "")
        previous = entry.expected_hash()
        entries.append(entry._replace(hash=previous)._asdict())
    connection.execute(insert(CHAIN), entries)
    connection.execute(update(CHAIN_HEAD).where(CHAIN_HEAD.c.id == 1).values(sequence=sequence, hash=previous))


def _is(table: Table, key: Sequence[Any]) -> ColumnElement[bool]:
    return and_(*(column == value for column, value in zip(table.primary_key, key, strict=True)))


def _value(value: Any) -> str | int:
    if isinstance(value, datetime):
        return value.isoformat(" ", "microseconds")
    assert isinstance(value, str | int)
    return value
