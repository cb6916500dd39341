"""Tampers with the ledgers in random ways and counts what `dosel verify` misses; times it on 100,000 entries, and the
check of a version's signature.

    make bench-trust             TAMPERINGS=10000 sets the number of random changes

It also lets a hundred challengers look at the same held-out rows (`benchmarks.looks`).

The tampering is that of a database owner without the signing key and without access to the signed heads.
"""

import argparse
import json
import random
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, create_engine, delete, insert, select, update
from sqlalchemy.pool import StaticPool

from benchmarks import looks
from benchmarks.installation import say
from dosel.db import chain
from dosel.db.engine import connect, transaction
from dosel.db.tables import CHAIN, CHAIN_HEAD, NOTES
from dosel.model import signature
from dosel.model.bundle import SIGNATURE_FILE
from dosel.registry.heads import Head, sign_head
from dosel.registry.ledger import Evidence, PromotionLedger
from dosel.registry.manifests import Manifest
from dosel.registry.verdicts import Verdict
from dosel.registry.verification import read_ledgers, verify
from dosel.settings import Settings
from dosel.signing import Keys, PublicKey, SigningKey
from tests.ledgers import drop_triggers

MODELS, VERSIONS = 3, 8
ENTRIES = 100_000
VERIFIED_TIMES = 3
FILES, LOADS = 20, 100

Tampering = Callable[[Engine, random.Random], bool]
"""Changes the database; returns False if the change happened to change nothing."""


def fill(engine: Engine) -> None:
    """Manifests, verdicts, promotions and notes of a few models."""
    ledger = PromotionLedger(engine)
    for model in (f"model_{number}" for number in range(MODELS)):
        for version in range(1, VERSIONS + 1):
            run = f"run-{version}"
            ledger.record_manifest(Manifest(model, version, run, {"model.skops": chain.sha256(run)}))
            ledger.add_verdict(model, version, run, Verdict(version % 3 > 0, f"because of {version}", {"f1": "0.8"}))
            ledger.append(model, version, "a person", f"because of {version}", Evidence(to_run=run))
            ledger.note(model, f"note {version}")


def edit(engine: Engine, chance: random.Random) -> bool:
    """Give one value of a row another one."""
    table = chance.choice((*chain.SEALED.values(), CHAIN))
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
        table, which = chain.SEALED[entry.table_name], chance.randrange(3)
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
            table = chain.SEALED[entry.table_name]
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
        chain.seal_all(connection)
    return True


TAMPERINGS: Mapping[str, Tampering] = {
    "a value changed": edit,
    "a row or an entry deleted": remove,
    "a row added": copy,
    "entries exchanged": swap,
    "the end cut off": cut,
    "the chain computed again": compute_again,
}


def tamper(count: int) -> dict[str, object]:
    """Tamper many times with the same ledgers, each time with a fresh copy."""
    key = SigningKey(Ed25519PrivateKey.generate())
    keys = {key.public.fingerprint: key.public}
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ledgers.db"
        original = connect(f"sqlite:///{file}")
        fill(original)
        head = sign_head(original, key)
        assert head is not None
        with transaction(original) as connection:
            drop_triggers(connection)
        chance, done, missed = random.Random(1), Counter[str](), Counter[str]()
        with closing(sqlite3.connect(file)) as source:
            while done.total() < count:
                name = chance.choice(list(TAMPERINGS))
                _restore(source, engine)
                if TAMPERINGS[name](engine, chance):
                    done[name] += 1
                    missed[name] += not _found(engine, head, keys)
    say("| tampering | times | missed |\n|---|---:|---:|")
    for name, times in sorted(done.items()):
        say(f"| {name} | {times:,} | {missed[name]:,} |")
    return {"tamperings": done.total(), "undetected": missed.total()}


def time_verification() -> dict[str, object]:
    """Seconds to verify 100,000 entries in SQLite: the fastest of three runs."""
    key = SigningKey(Ed25519PrivateKey.generate())
    with tempfile.TemporaryDirectory() as folder:
        engine = connect(f"sqlite:///{Path(folder) / 'ledgers.db'}")
        PromotionLedger(engine).note("model", "the first one")
        with transaction(engine) as connection:
            drop_triggers(connection)
            connection.execute(delete(CHAIN_HEAD))
            connection.execute(delete(CHAIN))
            note = connection.execute(select(NOTES)).mappings().one()
            kept = {name: value for name, value in note.items() if name != "id"}
            notes = [{**kept, "text": f"note {number}"} for number in range(1, ENTRIES)]
            connection.execute(insert(NOTES), notes)
            chain.seal_all(connection)
        head = sign_head(engine, key)
        assert head is not None
        took = []
        for _ in range(VERIFIED_TIMES):
            began = time.perf_counter()
            found = verify(read_ledgers(engine, [head]), {key.public.fingerprint: key.public})
            took.append(time.perf_counter() - began)
            assert (found.entries, found.problem) == (ENTRIES, "")
    say(f"\n{ENTRIES:,} entries verified in {min(took):.1f} s")
    return {"verify_100k_s": round(min(took), 2)}


def time_signatures() -> dict[str, object]:
    """Milliseconds that reading the keys and checking a signature add to a load: the slowest of a hundred."""
    with tempfile.TemporaryDirectory() as folder:
        keys, version = Keys(Settings(signing_key=str(Path(folder) / "key.pem"))), Path(folder) / "version"
        version.mkdir()
        files = {f"extra_files/{number}.parquet": chain.sha256(number) for number in range(FILES)}
        (version / SIGNATURE_FILE).write_bytes(signature.sign(keys.signing(), "model", files))
        took = []
        for _ in range(LOADS):
            began = time.perf_counter()
            signature.check_folder(version, keys.trusted(), "model", files)
            took.append(1000 * (time.perf_counter() - began))
    say(f"\na signature checked in {max(took):.1f} ms")
    return {"load_ms_added": round(max(took), 2)}


def _found(engine: Engine, head: Head, keys: Mapping[str, PublicKey]) -> bool:
    try:
        return bool(verify(read_ledgers(engine, [head]), keys).problem)
    except (ValueError, KeyError, TypeError):
        # The value cannot be read at all.
        return True


def _restore(source: sqlite3.Connection, engine: Engine) -> None:
    raw = engine.raw_connection()
    try:
        assert isinstance(raw.driver_connection, sqlite3.Connection)
        source.backup(raw.driver_connection)
    finally:
        raw.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tamperings", type=int, default=10_000)
    arguments = parser.parse_args()
    result = tamper(arguments.tamperings) | time_verification() | time_signatures() | looks.simulate()
    say(f"RESULT {json.dumps(result)}")


if __name__ == "__main__":
    main()
