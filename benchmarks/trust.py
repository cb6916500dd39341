"""Tampers with ledgers, versions, MLflow and the API's cache, and counts what dosel misses.

    make bench-trust             TAMPERINGS=10000 sets the number of random changes

Nine of ten changes are made in the database (`benchmarks.tampered_ledgers`), the others in a real installation
(`benchmarks.tampered_versions`). It also times the verification of 100,000 entries and of a version's signature, trains
every declared family again (`benchmarks.reproduced`), and lets a hundred challengers look at the same held-out rows
(`benchmarks.looks`).
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import delete, insert, select

from benchmarks import looks, reproduced, tampered_ledgers, tampered_versions
from benchmarks.installation import say
from dosel.certificates import Trusted
from dosel.db import chain
from dosel.db.engine import connect, transaction
from dosel.db.tables import CHAIN, CHAIN_HEAD, NOTES
from dosel.model import signature
from dosel.model.bundle import SIGNATURE_FILE
from dosel.registry.heads import sign_head
from dosel.registry.ledger import PromotionLedger
from dosel.registry.ledger_verification import read_ledgers, verify
from dosel.settings import Settings
from dosel.signing import Keys, SigningKey
from tests.ledgers import drop_triggers

ENTRIES = 100_000
VERIFIED_TIMES = 3
FILES, LOADS = 20, 100


def tamper(count: int) -> dict[str, object]:
    """Make that many random changes."""
    chance = random.Random(1)
    done, missed = tampered_ledgers.tamper(count - count // 10, chance)
    in_versions, missed_versions = tampered_versions.tamper(count // 10, chance)
    done, missed = done + in_versions, missed + missed_versions
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
            chain.start(connection)
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
            signature.check_folder(version, Trusted.of(keys), "model", files)
            took.append(1000 * (time.perf_counter() - began))
    say(f"\na signature checked in {max(took):.1f} ms")
    return {"load_ms_added": round(max(took), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tamperings", type=int, default=10_000)
    arguments = parser.parse_args()
    result = tamper(arguments.tamperings) | time_verification() | time_signatures()
    result |= reproduced.reproduce_all() | looks.simulate()
    say(f"RESULT {json.dumps(result)}")


if __name__ == "__main__":
    main()
