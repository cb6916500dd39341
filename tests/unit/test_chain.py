"""The hash chain of the ledgers: the tampering that `dosel verify` detects."""

import json
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy.exc import DBAPIError

from dosel.db import chain
from dosel.db.engine import connect, transaction
from dosel.db.tables import BATCHES, CHAIN, CHAIN_HEAD, ENTRY_SIGNATURES, NOTES, PROMOTIONS
from dosel.errors import DoselError, SettingsError
from dosel.monitor.ledger_watch import verify_ledgers
from dosel.registry import ledger_verification
from dosel.registry.heads import Head, Heads, sign_head
from dosel.registry.ledger import Evidence, PromotionLedger
from dosel.registry.ledger_verification import read_ledgers, verify
from dosel.settings import Settings
from dosel.signing import PublicKey, SigningKey, read_keys, signing_key, trusted_keys
from dosel.usecases.penguins import PENGUINS
from dosel.warehouse.events import EventStore
from dosel.warehouse.reset import clear
from tests.ledgers import drop_triggers

MODEL = "a_model"


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """A data store with five promotions, each with a signature and a note: entries 1 to 3 for the first one."""
    engine = connect(f"sqlite:///{tmp_path / 'warehouse.db'}")
    ledger = PromotionLedger(engine)
    for version in range(1, 6):
        ledger.append(MODEL, version, "a person", f"because of {version}", Evidence(metrics_after={"f1": 0.8}))
        ledger.note(MODEL, f'note {version}: ä \u2028 \\ "quoted"')
    return engine


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())


def problem(engine: Engine, key: SigningKey, *heads: Head) -> str:
    return verify(read_ledgers(engine, heads), trusted(key)).problem


def trusted(key: SigningKey) -> Mapping[str, PublicKey]:
    return {key.public.fingerprint: key.public}


def execute_as_owner(engine: Engine, *statements: Any) -> None:
    """Execute statements as the owner of the database, without triggers."""
    with transaction(engine) as connection:
        drop_triggers(connection)
        for statement in statements:
            connection.execute(statement)


def test_verify_accepts_ledgers_that_only_dosel_wrote(engine: Engine, key: SigningKey) -> None:
    head = sign_head(engine, key)
    assert head is not None
    found = verify(read_ledgers(engine, [head]), trusted(key))
    assert (found.entries, found.rows, found.heads, found.last_signed, found.problem) == (15, 15, 1, 15, "")


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (update(PROMOTIONS).where(PROMOTIONS.c.sequence == 2).values(actor="nobody"), "entry 4"),
        (update(PROMOTIONS).where(PROMOTIONS.c.sequence == 2).values(data_digest="0"), "entry 4"),
        (delete(NOTES).where(NOTES.c.text.startswith("note 2")), "entry 6"),
        (insert(NOTES).values(model=MODEL, sequence=5, at=datetime(2026, 1, 1), text="new"), "has no entry"),
        (update(CHAIN).where(CHAIN.c.sequence == 7).values(digest="0" * 64), "entry 7"),
        (delete(CHAIN).where(CHAIN.c.sequence == 7), "entry 7"),
        (delete(ENTRY_SIGNATURES).where(ENTRY_SIGNATURES.c.id == 2), "entry 5"),
        (update(NOTES).where(NOTES.c.id == 2).values(id=20), "entry 6"),
    ],
)
def test_verify_names_a_change_made_in_the_database(
    engine: Engine, key: SigningKey, statement: Any, named: str
) -> None:
    execute_as_owner(engine, statement)
    assert named in problem(engine, key)


def test_a_recomputed_chain_differs_from_the_signed_head(engine: Engine, key: SigningKey) -> None:
    head = sign_head(engine, key)
    assert head is not None
    execute_as_owner(
        engine,
        update(PROMOTIONS).where(PROMOTIONS.c.sequence == 2).values(actor="nobody"),
        delete(CHAIN),
        delete(CHAIN_HEAD),
    )
    with transaction(engine) as connection:
        chain.start(connection)
    assert problem(engine, key) == ""
    assert problem(engine, key, head).startswith("entry 15: it is not the entry whose hash was signed")


def test_a_truncated_chain_is_shorter_than_the_signed_head(engine: Engine, key: SigningKey) -> None:
    head = sign_head(engine, key)
    assert head is not None
    execute_as_owner(
        engine, delete(NOTES).where(NOTES.c.text.startswith("note 5")), delete(CHAIN).where(CHAIN.c.sequence == 15)
    )
    assert problem(engine, key) == ""
    assert problem(engine, key, head).startswith("entry 15: it is missing")


@pytest.mark.parametrize("content", [b"1", b"[]", b"null", b"no JSON", b'{"sequence": "1"}'])
def test_a_file_that_is_no_head_is_one_that_nobody_signed(content: bytes, tmp_path: Path) -> None:
    heads = Heads.in_folder(tmp_path / "heads")
    heads.add(Head(1, "hash", "at", "key"))
    (tmp_path / "heads" / "000000000002-key.json").write_bytes(content)
    assert [head.sequence for head in heads.all()] == [1, 0]


def test_a_head_signed_by_an_untrusted_key_is_refused(engine: Engine, key: SigningKey) -> None:
    head = sign_head(engine, SigningKey(Ed25519PrivateKey.generate()))
    assert head is not None
    assert "not signed by a trusted key" in problem(engine, key, head)


def test_triggers_refuse_changes_of_entries(engine: Engine) -> None:
    for statement in (
        update(PROMOTIONS).values(actor="nobody"),
        delete(PROMOTIONS),
        delete(NOTES),
        update(CHAIN).values(digest=""),
    ):
        with pytest.raises(DBAPIError, match="only added"), engine.begin() as connection:
            connection.execute(statement)


def test_reset_records_the_batch_lines_that_it_removes(engine: Engine, key: SigningKey) -> None:
    line = {
        **dict.fromkeys(("rows_received", "rows_clean", "rows_refused", "rows_duplicate"), 0),
        **{"use_case": PENGUINS.name, "stream": "s", "epoch": "1", "number": 1, "source": "here", "digest": "d"},
        "received_at": datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None),
    }
    for _ in range(2):
        # SQLite gives the second line the id of the first one.
        with transaction(engine) as connection:
            chain.add(connection, BATCHES, line)
        clear(engine, PENGUINS)
    found = verify(read_ledgers(engine, ()), trusted(key))
    assert (found.problem, found.removed, found.entries) == ("", 2, 19)
    with transaction(engine) as connection:
        chain.add(connection, BATCHES, line)
    execute_as_owner(engine, delete(BATCHES))
    assert problem(engine, key) == "entry 20: the row 1 of batches was deleted"


def test_verify_refuses_a_removal_entry_for_any_other_table(engine: Engine, key: SigningKey) -> None:
    def forge(connection: Connection) -> None:
        row = connection.execute(select(NOTES).where(NOTES.c.id == 1)).mappings().one()
        last = chain.Entry(*connection.execute(select(CHAIN).order_by(CHAIN.c.sequence.desc())).first())  # type: ignore[misc]
        digest = chain.sha256(chain.content(row))
        entry = chain.Entry(16, "removed", "promotion_notes", "[1]", digest, last.hash, "")
        connection.execute(insert(CHAIN).values(entry._replace(hash=entry.expected_hash())._asdict()))

    execute_as_owner(engine)
    with transaction(engine) as connection:
        forge(connection)
        connection.execute(delete(NOTES).where(NOTES.c.id == 1))
    assert problem(engine, key) == "entry 16: dosel never removes a row such as 1 of promotion_notes"


def test_an_export_can_be_verified_with_the_public_key_alone(engine: Engine, key: SigningKey, tmp_path: Path) -> None:
    head = sign_head(engine, key)
    assert head is not None
    lines = list(ledger_verification.export(read_ledgers(engine, [head])))
    file = tmp_path / "ledgers.jsonl"
    file.write_text("\n".join(lines))
    assert verify(ledger_verification.read_export(file), trusted(key), exported=True).problem == ""
    for number, line in enumerate(lines[1:], 1):
        file.write_text("\n".join(lines[:number] + lines[number + 1 :]))
        without = verify(ledger_verification.read_export(file), trusted(key), exported=True)
        assert without.problem
        assert ("no head is signed" in without.problem) == ("head" in json.loads(line))


ADDED: dict[str, Callable[[list[str]], list[str]]] = {
    "a row that is there twice": lambda lines: [*lines, next(line for line in lines if '"row"' in line)],
    "a name that occurs twice": lambda lines: [*lines[:-1], lines[-1].replace('{"head"', '{"head": 1, "head"')],
    "a row beside an entry": lambda lines: [
        *lines[:1],
        lines[1].replace("{", '{"table": "t", "key": "[1]", "row": {}, ', 1),
        *lines[2:],
    ],
    "something else": lambda lines: [*lines, '{"note": "all is well"}'],
    "another first line": lambda lines: ['{"format": "dosel ledgers 1", "entry": {}}', *lines[1:]],
    "nothing but a list": lambda lines: [*lines, "[]"],
}


@pytest.mark.parametrize("added", ADDED)
def test_a_line_that_no_export_has_is_refused(added: str, engine: Engine, key: SigningKey, tmp_path: Path) -> None:
    head = sign_head(engine, key)
    assert head is not None
    lines = list(ledger_verification.export(read_ledgers(engine, [head])))
    file = tmp_path / "ledgers.jsonl"
    file.write_text("\n".join(ADDED[added](lines)))
    with pytest.raises(DoselError, match=r"line \d+: not an export of the ledgers"):
        ledger_verification.read_export(file)


@pytest.mark.parametrize("seed", range(20))
def test_verify_detects_every_random_edit_of_an_export(
    engine: Engine, key: SigningKey, tmp_path: Path, seed: int
) -> None:
    head = sign_head(engine, key)
    assert head is not None
    edits: list[Callable[[random.Random, list[Any]], None]] = [
        lambda chance, items: items.pop(chance.randrange(len(items))),
        lambda chance, items: chance.shuffle(items),
        lambda chance, items: items.insert(0, items[-1]),
    ]
    lines = [json.loads(line) for line in ledger_verification.export(read_ledgers(engine, [head]))]
    chance = random.Random(seed)
    entries = [line for line in lines if "entry" in line]
    rows = [line for line in lines if "row" in line]
    before = json.dumps([entries, rows])
    chance.choice(edits)(chance, chance.choice((entries, rows)))
    if json.dumps([entries, rows]) == before:
        pytest.fail("the edit changed nothing")
    file = tmp_path / "ledgers.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in (lines[0], *entries, *rows, lines[-1])))
    if len(rows) > len({line["table"] + line["key"] for line in rows}):
        with pytest.raises(DoselError, match="is there twice"):
            ledger_verification.read_export(file)
        return
    found = verify(ledger_verification.read_export(file), trusted(key))
    # Only the order of entries counts, not that of rows.
    same_rows = {json.dumps(line) for line in rows} == {json.dumps(line) for line in lines if "row" in line}
    assert found.problem or (same_rows and [line for line in lines if "entry" in line] == entries)


@pytest.mark.parametrize(
    "value",
    [{"b": "ä\u2028\ud7ff", "a": 1, "C": '\\ " \x00 \x1f \x7f / \b\f\n\r\t'}, [1, "zwei", [2**53 - 1, -5]], {}, ""],
)
def test_canonical_json_follows_rfc_8785(value: Any) -> None:
    assert chain.canonical(value) == rfc8785.dumps(value)


def test_the_hourly_check_signs_a_valid_chain_and_reports_a_broken_one(engine: Engine, tmp_path: Path) -> None:
    settings = Settings(warehouse_url=str(engine.url), heads=str(tmp_path / "kept"))
    assert verify_ledgers(settings).first_problem == ""
    [head] = Heads.in_folder(tmp_path / "kept").all()
    assert head.sequence == 15
    execute_as_owner(engine, update(PROMOTIONS).where(PROMOTIONS.c.sequence == 2).values(actor="nobody"))
    for _ in range(2):
        assert "entry 4" in verify_ledgers(settings).problem
    [event] = [event for event in EventStore(engine).newest(20) if event.kind == "audit mismatch"]
    assert "entry 4" in event.evidence
    assert event.command == "dosel verify"
    assert len(Heads.in_folder(tmp_path / "kept").all()) == 1


def test_a_signing_key_readable_by_other_users_is_refused(tmp_path: Path) -> None:
    settings = Settings(signing_key=str(tmp_path / "key.pem"))
    first = signing_key(settings)
    again = signing_key(settings)
    assert first is not None
    assert again is not None
    assert first.public.fingerprint == again.public.fingerprint
    assert read_keys(tmp_path / "key.pub").keys() == first.both.keys()
    (tmp_path / "key.pem").chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        signing_key(settings)


def test_keys_from_before_a_rotation_stay_trusted_until_they_are_removed(engine: Engine, tmp_path: Path) -> None:
    before, now = (signing_key(Settings(signing_key=str(tmp_path / name))) for name in ("before.pem", "now.pem"))
    assert before is not None
    assert now is not None
    heads = [head for key in (before, now) if (head := sign_head(engine, key))]
    ledgers = read_ledgers(engine, heads)
    file = tmp_path / "trusted.pem"
    file.write_bytes(before.public.pem() + now.public.pem())
    assert verify(ledgers, trusted_keys(Settings(trusted_keys=str(file)))).problem == ""
    file.write_bytes(now.public.pem())
    assert "not signed by a trusted key" in verify(ledgers, trusted_keys(Settings(trusted_keys=str(file)))).problem
