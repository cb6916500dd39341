"""Tampers with the ledgers as the owner of the database, without the signing key and the signed heads.

Each change is made in a fresh copy of the database. Counts what `dosel verify` and the check of approvals miss.
"""

import json
import random
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from sqlalchemy import Engine, create_engine, delete, insert, select, update
from sqlalchemy.pool import StaticPool

from dosel.db import chain
from dosel.db.engine import connect, transaction
from dosel.db.tables import APPROVAL_REQUESTS, APPROVALS, CHAIN, CHAIN_HEAD, ENTRY_SIGNATURES, NOTES
from dosel.errors import ApprovalsMissing
from dosel.model import signature
from dosel.registry.approvals import Approvals, Subject
from dosel.registry.heads import Head, sign_head
from dosel.registry.ledger import Evidence, PromotionLedger
from dosel.registry.ledger_verification import read_ledgers, verify
from dosel.registry.manifests import Manifest
from dosel.registry.shadows import ShadowRecord
from dosel.registry.signed_entries import SIGNED
from dosel.registry.verdicts import Verdict
from dosel.settings import Settings
from dosel.signing import Keys
from dosel.usecases import ALL, Approval
from tests.ledgers import drop_triggers

MODELS = tuple(use_case.model_name for use_case in ALL)
VERSIONS = 4
NAMES = {"a" * 20: "ana", "b" * 20: "ben", "c" * 20: "cleo"}

Tampering = Callable[[Engine, random.Random], bool]
"""Changes the database; returns False if the change happened to change nothing."""


def fill(engine: Engine, keys: Keys) -> None:
    """Signed manifests, verdicts, promotions, shadows, requests, approvals and notes of a few models."""
    ledger, book = PromotionLedger(engine, keys), Approvals(engine, NAMES, keys)
    for model in MODELS:
        for version in range(1, VERSIONS + 1):
            run, now = f"{version:032x}", datetime.now(UTC)
            files = {"model.skops": chain.sha256(run)}
            signed = signature.sign(keys.signing(), model, files).decode()
            ledger.record_manifest(Manifest(model, version, run, files, signature=signed))
            ledger.add_verdict(model, version, run, Verdict(version % 3 > 0, f"because of {version}", {"f1": "0.8"}))
            ask(book, model, version, "ana", "ben")
            ledger.append(model, version, "a person", f"because of {version}", Evidence(to_run=run))
            until = now + timedelta(days=1)
            ledger.start_shadow(
                ShadowRecord(
                    model, version, "control", version, run, version, version, now, until, "a task", "it passed"
                )
            )
            ledger.note(model, f"note {version}")
        # The last request waits for a second person.
        ask(book, model, VERSIONS + 1, "ana")


def ask(book: Approvals, model: str, version: int, *holders: str) -> None:
    """Let people ask for a promotion."""
    for holder in holders:
        try:
            subject = Subject(model, version, f"{version:032x}", "1" * 64, "2" * 64, version - 1, "manual")
            book.admit(subject, f"API key {holder}", "better", holder)
        except ApprovalsMissing:
            continue


def edit(engine: Engine, chance: random.Random) -> bool:
    """Give one value of a row another one."""
    table = chance.choice((*chain.CHAINED.values(), CHAIN))
    with engine.begin() as connection:
        rows = connection.execute(select(table)).mappings().all()
        if not rows:
            return False
        row, column = chance.choice(rows), chance.choice(list(table.c))
        old = row[column.name]
        new = old + 1000 if isinstance(old, int) else "changed" if isinstance(old, str) else None
        if new is None:
            return False
        mine = [key == row[key.name] for key in table.primary_key]
        connection.execute(update(table).where(*mine).values({column.name: new}))
    return True


def remove(engine: Engine, chance: random.Random) -> bool:
    """Delete a row, or an entry of the chain, or both."""
    with engine.begin() as connection:
        entry = chance.choice(connection.execute(select(CHAIN)).all())
        table, which = chain.CHAINED[entry.table_name], chance.randrange(3)
        if which != 0:
            keys = zip(table.primary_key, json.loads(entry.row_key), strict=True)
            connection.execute(delete(table).where(*(column == value for column, value in keys)))
        if which != 1:
            connection.execute(delete(CHAIN).where(CHAIN.c.sequence == entry.sequence))
    return True


def copy(engine: Engine, chance: random.Random) -> bool:
    """Add a row without an entry."""
    with engine.begin() as connection:
        row = chance.choice(connection.execute(select(NOTES)).mappings().all())
        connection.execute(insert(NOTES).values({**row, "id": None}))
    return True


def swap(engine: Engine, chance: random.Random) -> bool:
    """Exchange two entries of the chain."""
    with engine.begin() as connection:
        one, other = (row.sequence for row in chance.sample(connection.execute(select(CHAIN)).all(), 2))
        for old, new in ((one, -1), (other, one), (-1, other)):
            connection.execute(update(CHAIN).where(CHAIN.c.sequence == old).values(sequence=new))
    return True


def cut(engine: Engine, chance: random.Random) -> bool:
    """Remove the last entries with their rows, and set the head to the last remaining entry."""
    with engine.begin() as connection:
        entries = connection.execute(select(CHAIN).order_by(CHAIN.c.sequence)).all()
        keep = chance.randrange(1, len(entries))
        for entry in entries[keep:]:
            table = chain.CHAINED[entry.table_name]
            keys = zip(table.primary_key, json.loads(entry.row_key), strict=True)
            connection.execute(delete(table).where(*(column == value for column, value in keys)))
        connection.execute(delete(CHAIN).where(CHAIN.c.sequence > keep))
        last = entries[keep - 1]
        connection.execute(update(CHAIN_HEAD).values(sequence=last.sequence, hash=last.hash))
    return True


def compute_again(engine: Engine, chance: random.Random) -> bool:
    """Change a row, then compute a new chain that matches."""
    if not edit(engine, chance):
        return False
    with engine.begin() as connection:
        connection.execute(delete(CHAIN))
        connection.execute(delete(CHAIN_HEAD))
        chain.start(connection)
    return True


def forge_entry(engine: Engine, chance: random.Random) -> bool:
    """Append an entry that decides what is served, copied from another one, with a computed place in the chain."""
    table = chance.choice(list(SIGNED.values()))
    with transaction(engine) as connection:
        row = dict(chance.choice(connection.execute(select(table)).mappings().all()))
        # With another number, so that the copy is a row of its own at the end of the ledger.
        later = {name: 100 + row[name] for name in ("sequence", "number") if name in row} or {"version": 99}
        key = chain.add(connection, table, row | later | {"id": None})
        if chance.random() < 0.5:
            seal = chance.choice(connection.scalars(select(ENTRY_SIGNATURES.c.seal)).all())
            place = chain.canonical(list(key)).decode()
            chain.add(connection, ENTRY_SIGNATURES, {"table_name": table.name, "row_key": place, "seal": seal})
    return True


def forge_approval(engine: Engine, chance: random.Random) -> bool:
    """Append an approval of another person, with a code from elsewhere and a computed place in the chain."""
    with transaction(engine) as connection:
        request = chance.choice(connection.execute(select(APPROVAL_REQUESTS)).mappings().all())
        known = connection.execute(select(APPROVALS)).mappings().all()
        mine = [row["mac"] for row in known if (row["model"], row["number"]) == (request["model"], request["number"])]
        macs = [row["mac"] for row in known if row["mac"] not in mine] + ["0" * 64]
        values = {"model": request["model"], "number": request["number"], "holder": "cleo", "mac": chance.choice(macs)}
        chain.add(connection, APPROVALS, values | {"at": datetime.now(UTC).replace(tzinfo=None)})
    return True


TAMPERINGS: Mapping[str, Tampering] = {
    "a value changed": edit,
    "a row or an entry deleted": remove,
    "a row added": copy,
    "entries exchanged": swap,
    "the end cut off": cut,
    "the chain computed again": compute_again,
    "an entry forged with a place in the chain": forge_entry,
    "an approval forged with a place in the chain": forge_approval,
}


@dataclass(frozen=True)
class Verifier:
    """The keys and the signed head, which the owner of the database does not have."""

    keys: Keys
    head: Head

    def finds(self, engine: Engine, agreed: Mapping[tuple[str, int], list[str]]) -> bool:
        """Whether verification finds the change, or every approval that counts was given before the change."""
        try:
            found = verify(read_ledgers(engine, [self.head]), self.keys.trusted())
            if found.first_problem:
                return True
            now = approved(engine, self.keys)
        except (ValueError, KeyError, TypeError):
            # The value cannot be read at all.
            return True
        return all(set(holders) <= set(agreed.get(place, ())) for place, holders in now.items())


def approved(engine: Engine, keys: Keys) -> dict[tuple[str, int], list[str]]:
    """Whose approvals count, by model and request."""
    book = Approvals(engine, NAMES, keys)
    return {(model, request.number): request.holders(NAMES) for model in MODELS for request in book.of_model(model)}


def tamper(count: int, chance: random.Random) -> tuple[Counter[str], Counter[str]]:
    """Tamper that many times; return how often in each way, and how often it was missed."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    done, missed = Counter[str](), Counter[str]()
    two_people = tuple(replace(use_case, approval=Approval(people=2)) for use_case in ALL)
    with tempfile.TemporaryDirectory() as folder, patch("dosel.registry.approvals.ALL", two_people):
        keys = Keys(Settings(signing_key=str(Path(folder) / "key.pem")))
        file = Path(folder) / "ledgers.db"
        original = connect(f"sqlite:///{file}")
        fill(original, keys)
        head = sign_head(original, keys.signing())
        assert head is not None
        verifier, agreed = Verifier(keys, head), approved(original, keys)
        with transaction(original) as connection:
            drop_triggers(connection)
        with closing(sqlite3.connect(file)) as source:
            while done.total() < count:
                name = chance.choice(list(TAMPERINGS))
                _restore(source, engine)
                if TAMPERINGS[name](engine, chance):
                    done[name] += 1
                    missed[name] += not verifier.finds(engine, agreed)
    return done, missed


def _restore(source: sqlite3.Connection, engine: Engine) -> None:
    raw = engine.raw_connection()
    try:
        assert isinstance(raw.driver_connection, sqlite3.Connection)
        source.backup(raw.driver_connection)
    finally:
        raw.close()
