"""Verifies the ledgers: their hash chain, the signed heads and all signatures. Names the first wrong entry."""

import gc
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, select

from dosel.certificates import NO_ROOTS, Roots, Trusted
from dosel.db.chain import CHAINED, REMOVABLE, START, Entry, canonical, content_of, sha256
from dosel.db.engine import reading
from dosel.db.migrations import migrate
from dosel.db.tables import CHAIN, ENTRY_SIGNATURES, MANIFESTS
from dosel.errors import DoselError, UntrustedKey, UntrustedModel
from dosel.model import signature
from dosel.registry.heads import Head, read_head
from dosel.registry.manifests import TRAINED
from dosel.registry.signed_entries import SIGNED, describe, is_signed
from dosel.signing import PublicKey

FORMAT = "dosel ledgers 1"

Contents = dict[tuple[str, str], Mapping[str, str | int]]
"""Rows by table and key."""


@dataclass(frozen=True)
class Verified:
    """The result of a verification. `problem` is a sentence about the first entry that is wrong; "" if all are right.

    `untrusted` has sentences about versions whose key is not trusted, or no longer. `unsigned` has one about each row
    that decides what is served and has no signature of a trusted key.
    """

    entries: int
    rows: int
    removed: int
    heads: int
    last_signed: int
    problem: str = ""
    signed_versions: int = 0
    untrusted: Sequence[str] = ()
    unsigned: Sequence[str] = ()

    @property
    def first_problem(self) -> str:
        """A sentence about the first thing that is wrong; "" if nothing is."""
        return self.problem or next(iter(self.unsigned), "")


class Ledgers(NamedTuple):
    """Everything that is verified: the chain, the rows of the ledgers, and the signed heads."""

    entries: Sequence[Entry]
    rows: Contents
    heads: Sequence[Head]


@contextmanager
def _without_collections() -> Iterator[None]:
    """No garbage collection: it would visit hundreds of thousands of rows, which all stay, again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_without_collections()
def read_ledgers(engine: Engine, heads: Sequence[Head]) -> Ledgers:
    """The chain and the rows as the database has them, in one state.

    Raises:
        WarehouseError: the data store cannot be reached, or failed.
    """
    migrate(engine)
    with reading(engine) as connection:
        entries = [Entry(*row) for row in connection.execute(select(CHAIN).order_by(CHAIN.c.sequence))]
        return Ledgers(entries, dict(_rows(connection)), heads)


@_without_collections()
def verify(
    ledgers: Ledgers, keys: Mapping[str, PublicKey], roots: Roots = NO_ROOTS, exported: bool = False
) -> Verified:
    """Check each entry against the one before and against its row, and the chain against the signed heads.

    Args:
        keys: the trusted keys, by fingerprint.
        roots: the root certificates that are trusted on versions.
        exported: the ledgers were in a file, for which nothing but a signed head vouches.
    """
    signed = [head for head in ledgers.heads if head.is_signed(keys)]
    last_signed = max((head.sequence for head in signed), default=0)
    there: dict[tuple[str, str], Entry] = {}
    problem = next(_problems(ledgers, there, signed), "")
    if not problem and len(signed) < len(ledgers.heads):
        wrong = next(head for head in ledgers.heads if not head.is_signed(keys))
        problem = f"the head of entry {wrong.sequence} is not signed by a trusted key (its key is {wrong.key or '?'})"
    signatures = [check for key, row in ledgers.rows.items() if (check := _signature(key, row, Trusted(keys, roots)))]
    problem = problem or next((check.problem for check in signatures if check.problem), "")
    if exported and not signed and not problem:
        problem = "no head is signed by a trusted key, so anybody could have written this file"
    return Verified(
        entries=len(ledgers.entries),
        rows=len(ledgers.rows),
        removed=sum(entry.kind == "removed" for entry in ledgers.entries),
        heads=len(signed),
        last_signed=last_signed,
        problem=problem,
        signed_versions=sum(not check.problem and not check.untrusted for check in signatures),
        untrusted=[check.untrusted for check in signatures if check.untrusted],
        unsigned=list(_unsigned(ledgers.rows, keys)),
    )


def export(ledgers: Ledgers) -> Iterator[str]:
    """The lines of a file that can be verified elsewhere: JSON, a line for each entry, row and head."""
    yield json.dumps({"format": FORMAT})
    for entry in ledgers.entries:
        yield json.dumps({"entry": entry._asdict()})
    for (table, key), row in ledgers.rows.items():
        yield json.dumps({"table": table, "key": key, "row": row})
    for head in ledgers.heads:
        yield json.dumps({"head": head.document()})


def read_export(file: Path) -> Ledgers:
    """The ledgers in a file that `export` wrote.

    Raises:
        DoselError: the file is something else; the message names the line.
    """
    entries: list[Entry] = []
    rows: Contents = {}
    heads: list[Head] = []
    number = 0
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                match json.loads(line, object_pairs_hook=_without_repetition):
                    case {"format": format, **more} if number == 1 and format == FORMAT and not more:
                        pass
                    case _ if number == 1:
                        raise ValueError(f"expected the format {FORMAT!r}")
                    case {"entry": entry, **more} if not more:
                        entries.append(Entry(**entry))
                    case {"table": table, "key": key, "row": row, **more} if not more:
                        if (table, key) in rows:
                            raise ValueError(f"the row {_named((table, key))} is there twice")
                        rows[table, key] = row
                    case {"head": head, **more} if not more:
                        heads.append(read_head(head))
                    case _:
                        raise ValueError("expected an entry, a row or a head, and nothing else")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DoselError(f"{file}, line {number}: not an export of the ledgers ({error})") from error
    return Ledgers(entries, rows, heads)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises ValueError if a name occurs twice, since other parsers may take the first one's value."""
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a name occurs twice in an object")
    return found


def _problems(ledgers: Ledgers, there: dict[tuple[str, str], Entry], heads: Sequence[Head]) -> Iterator[str]:
    """Sentences about what is wrong, in the order of the chain."""
    signed = {head.sequence: head for head in heads}
    last_entries = {(entry.table_name, entry.row_key): entry.sequence for entry in ledgers.entries}
    previous = START
    for number, entry in enumerate(ledgers.entries, 1):
        sequence, kind, table, key, _, linked, hashed = entry
        if sequence != number or linked != previous or hashed != entry.expected_hash():
            yield from _wrong_link(entry, number, previous)
        head = signed.get(sequence)
        if head is not None and head.hash != hashed:
            yield f"entry {number}: it is not the entry whose hash was signed at {head.at}"
        place = table, key
        if kind == "removed":
            yield from _wrong_removal(entry, there.pop(place, None))
        elif place in there:
            yield f"entry {number}: the row {_named(place)} has a second entry in the chain"
        else:
            there[place] = entry
            if last_entries[place] == number:
                row = ledgers.rows.get(place)
                if row is None or sha256(row) != entry.digest:
                    yield _wrong_row(entry, row)
        previous = hashed
    if signed and max(signed) > len(ledgers.entries):
        head = signed[max(signed)]
        yield (
            f"entry {len(ledgers.entries) + 1}: it is missing; the chain had {head.sequence} entries when its head "
            f"was signed at {head.at}"
        )
    for place in ledgers.rows.keys() - there.keys():
        yield f"the row {_named(place)} has no entry in the chain: dosel did not write it"


class _Signature(NamedTuple):
    """What is wrong with a version's signature; both are "" if a trusted key signed it."""

    problem: str = ""
    untrusted: str = ""


def _signature(place: tuple[str, str], row: Mapping[str, str | int], trusted: Trusted) -> _Signature | None:
    """Check the signature in a version's manifest; None if the row has none."""
    if place[0] != MANIFESTS.name or row.get("version") == TRAINED or "signature" not in row:
        return None
    named = f"{row.get('model')} version {row.get('version')}"
    try:
        files = json.loads(str(row["files"]))
        signature.check(str(row["signature"]).encode(), trusted, str(row["model"]), files)
    except UntrustedKey as error:
        return _Signature(untrusted=f"{named}: {error}")
    except (UntrustedModel, ValueError, KeyError, AttributeError) as error:
        return _Signature(problem=f"the manifest of {named}: {error}")
    return _Signature()


def _unsigned(rows: Contents, keys: Mapping[str, PublicKey]) -> Iterator[str]:
    """Sentences about rows without the signature of a trusted key."""
    known: dict[tuple[object, object], list[str]] = {}
    for (table, _), row in rows.items():
        if table == ENTRY_SIGNATURES.name:
            known.setdefault((row.get("table_name"), row.get("row_key")), []).append(str(row.get("seal")))
    for (table, key), row in rows.items():
        if table in SIGNED and not is_signed(table, sha256(row), known.get((table, key), ()), keys):
            yield (
                f"{describe(table, row)} has no signature of a trusted key: dosel did not write it, or an older one "
                "did (`dosel sign`)"
            )


def _wrong_link(entry: Entry, number: int, previous: str) -> Iterator[str]:
    if entry.sequence != number:
        yield f"entry {number}: it is missing; the next one is {entry.sequence}"
    if entry.previous != previous:
        yield f"entry {number}: its `previous` is not the hash of entry {number - 1}"
    if entry.hash != entry.expected_hash():
        yield f"entry {number}: its content does not match its hash"


def _wrong_row(entry: Entry, row: Mapping[str, str | int] | None) -> str:
    place = _named((entry.table_name, entry.row_key))
    return f"entry {entry.sequence}: the row {place} was {'deleted' if row is None else 'changed'}"


def _wrong_removal(entry: Entry, added: Entry | None) -> Iterator[str]:
    place = _named((entry.table_name, entry.row_key))
    if entry.table_name not in {table.name for table in REMOVABLE}:
        yield f"entry {entry.sequence}: dosel never removes a row such as {place}"
    elif added is None or added.digest != entry.digest:
        yield f"entry {entry.sequence}: it removes {place}, which was not there in this form"


def _rows(connection: Connection) -> Iterator[tuple[tuple[str, str], Mapping[str, str | int]]]:
    for table in CHAINED.values():
        names, keys = [column.name for column in table.c], [column.name for column in table.primary_key]
        for row in connection.execute(select(table)):
            found = content_of(names, row)
            yield (table.name, canonical([found[name] for name in keys]).decode()), found


def _named(place: Iterable[str]) -> str:
    table, key = place
    return f"{key.strip('[]')} of {table}"
