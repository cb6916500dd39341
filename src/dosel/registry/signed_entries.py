"""Signed rows of the ledgers, which decide what is served: access to the database is not enough to write one.

Serving and the pipeline pass over rows without the signature of a trusted key, also if they have a right place in the
hash chain. The signatures are rows of a ledger of their own, so that none can be removed unseen.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, func, select

from dosel.db import chain
from dosel.db.tables import APPROVAL_REQUESTS, CHAIN, ENTRY_SIGNATURES, MANIFESTS, PROMOTIONS, SHADOWS, VERDICTS
from dosel.entry_signatures import is_entry_signed, sign_entry
from dosel.settings import Settings
from dosel.signing import Keys, PublicKey

SIGNED: Mapping[str, Table] = {
    table.name: table for table in (MANIFESTS, PROMOTIONS, VERDICTS, SHADOWS, APPROVAL_REQUESTS)
}
"""The tables whose rows are signed, by name."""


def add(connection: Connection, table: Table, values: Mapping[str, Any], settings: Settings) -> tuple[Any, ...]:
    """Insert a row with its entry in the chain and its signature; return the row's primary key.

    Raises:
        IntegrityError: the table has a row with such a key.
        SettingsError: this process has no key to sign with.
    """
    key = chain.add(connection, table, values)
    mine = [column == value for column, value in zip(table.primary_key, key, strict=True)]
    _sign(connection, table, connection.execute(select(table).where(*mine)).mappings().one(), settings)
    return key


def proven(connection: Connection, table: Table, rows: Sequence[RowMapping], keys: Keys) -> list[RowMapping]:
    """The rows that a trusted key has signed, in the same order. Rows have all columns of the table."""
    if not rows:
        return []
    mine = ENTRY_SIGNATURES.c.table_name == table.name
    if len(rows) == 1:
        mine &= ENTRY_SIGNATURES.c.row_key == chain.row_key(table, rows[0])
    signatures: dict[str, list[str]] = {}
    for found in connection.execute(select(ENTRY_SIGNATURES.c.row_key, ENTRY_SIGNATURES.c.seal).where(mine)):
        signatures.setdefault(found.row_key, []).append(found.seal)
    trusted = keys.trusted()
    return [
        row
        for row in rows
        if (known := signatures.get(chain.row_key(table, row)))
        and is_signed(table.name, chain.sha256(chain.content(row)), known, trusted)
    ]


def is_signed(table: str, digest: str, signatures: Sequence[str], trusted: Mapping[str, PublicKey]) -> bool:
    """Whether one of these signatures is that of a trusted key, for a row with this digest.

    Args:
        digest: of the row's content, which has its primary key, too.
    """
    message, keys = _message(table, digest), tuple(trusted.values())
    return any(_is_signed(message, one, keys) for one in signatures)


def sign_older(connection: Connection, keys: Keys, every: bool) -> tuple[list[str], list[str]]:
    """Sign rows that have no signature of a trusted key, in an installation that is upgraded.

    Args:
        every: also rows that were added after the first signature: they may be forged, or signed by a revoked key, so
            that a person must look at them first.

    Returns:
        The rows that were signed, and those that were not, in words.
    """
    first = connection.scalar(select(func.min(CHAIN.c.sequence)).where(CHAIN.c.table_name == ENTRY_SIGNATURES.name))
    signed, left = [], []
    for table in SIGNED.values():
        rows = connection.execute(select(table).order_by(*table.primary_key)).mappings().all()
        right = {chain.row_key(table, row) for row in proven(connection, table, rows, keys)}
        places = _places(connection, CHAIN.c.table_name == table.name)
        for row in rows:
            key = chain.row_key(table, row)
            if key in right:
                continue
            if every or first is None or places.get(key, first) < first:
                _sign(connection, table, row, keys.settings)
                signed.append(describe(table.name, dict(row)))
            else:
                left.append(describe(table.name, dict(row)))
    return signed, left


def describe(table: str, row: Mapping[str, Any]) -> str:
    """A row in words, such as "promotions 3 of penguins_species (version 7)"."""
    version = row.get("to_version", row.get("version"))
    return f"{table} {row.get('sequence', row.get('number', row.get('id')))} of {row.get('model')} (version {version})"


@lru_cache(maxsize=10_000)
def _is_signed(message: bytes, one: str, keys: tuple[PublicKey, ...]) -> bool:
    """As `is_entry_signed`, once for each signature: polls read the same entries again and again."""
    return is_entry_signed(message, one, {key.fingerprint: key for key in keys})


def _places(connection: Connection, mine: ColumnElement[bool]) -> dict[str, int]:
    entries = connection.execute(select(CHAIN.c.row_key, CHAIN.c.sequence).where(mine))
    return {entry.row_key: entry.sequence for entry in entries}


def _sign(connection: Connection, table: Table, row: RowMapping, settings: Settings) -> None:
    made = sign_entry(_message(table.name, chain.sha256(chain.content(row))), settings)
    chain.add(
        connection, ENTRY_SIGNATURES, {"table_name": table.name, "row_key": chain.row_key(table, row), "seal": made}
    )


def _message(table: str, digest: str) -> bytes:
    return b"dosel entry of the ledgers 1\n" + chain.canonical({"table": str(table), "row": digest})
