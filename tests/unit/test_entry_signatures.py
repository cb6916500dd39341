"""Entries that decide what is served need the signature of a trusted key, also if somebody owns the database."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, insert, select, update

from dosel.db import chain
from dosel.db.engine import connect, transaction
from dosel.db.migrations import migrate
from dosel.db.tables import APPROVAL_REQUESTS, CHAIN, CHAIN_HEAD, ENTRY_SIGNATURES, PROMOTIONS, SHADOWS, VERDICTS
from dosel.entry_signatures import EntryKey, is_entry_signed, sign_entry, write_entry_key
from dosel.errors import ApprovalsMissing, SettingsError
from dosel.registry.approvals import Approvals, Subject
from dosel.registry.ledger import Evidence, PromotionLedger
from dosel.registry.ledger_verification import read_ledgers, verify
from dosel.registry.shadows import ShadowRecord
from dosel.registry.verdicts import Verdict
from dosel.settings import Settings
from dosel.signing import Keys, signing_key
from dosel.usecases import Approval
from dosel.usecases.penguins import PENGUINS
from tests.ledgers import drop_triggers

MODEL = PENGUINS.model_name
RUN = "f" * 32


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = connect(f"sqlite:///{tmp_path / 'warehouse.db'}")
    migrate(engine)
    return engine


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(signing_key=str(tmp_path / "key.pem"))


@pytest.fixture
def ledger(engine: Engine, settings: Settings) -> PromotionLedger:
    """A ledger with two entries."""
    ledger = PromotionLedger(engine, Keys(settings))
    for version in (1, 2):
        ledger.append(MODEL, version, "a person", "better", Evidence(to_run=RUN))
    return ledger


def last(ledger: PromotionLedger) -> tuple[int, int] | None:
    """Sequence and version of the last entry that is followed."""
    entry = ledger.last(MODEL)
    return (entry.sequence, entry.to_version) if entry else None


def forged_entry(**changes: Any) -> dict[str, Any]:
    values = {
        **{"model": MODEL, "sequence": 3, "from_version": 2, "to_version": 9, "at": datetime(2026, 1, 1)},
        **{"actor": "API key ana", "reason": "better", "kind": "manual", "to_run": RUN},
        **{"metrics_before": "{}", "metrics_after": "{}"},
    }
    return values | changes


def as_owner(engine: Engine, *statements: Any) -> None:
    """Change the database as its owner, and compute the chain again."""
    with transaction(engine) as connection:
        drop_triggers(connection)
        for statement in (*statements, delete(CHAIN), delete(CHAIN_HEAD)):
            connection.execute(statement)
        chain.start(connection)


def copied_seal(engine: Engine, row_key: str) -> Any:
    """A statement that gives another entry the signature of the last one."""
    with engine.begin() as connection:
        known = connection.scalar(select(ENTRY_SIGNATURES.c.seal).order_by(ENTRY_SIGNATURES.c.id.desc()).limit(1))
    return insert(ENTRY_SIGNATURES).values(table_name="promotions", row_key=row_key, seal=known)


FORGERIES: Mapping[str, Callable[[Engine], list[Any]]] = {
    "an entry without a signature": lambda engine: [insert(PROMOTIONS).values(forged_entry())],
    "an entry with the signature of another one": lambda engine: [
        insert(PROMOTIONS).values(forged_entry(id=3)),
        copied_seal(engine, "[3]"),
    ],
    "an entry with an invented signature": lambda engine: [
        insert(PROMOTIONS).values(forged_entry(id=3)),
        insert(ENTRY_SIGNATURES).values(table_name="promotions", row_key="[3]", seal=f"{'0' * 16}:{'0' * 128}"),
    ],
    "an entry with no signature at all": lambda engine: [
        insert(PROMOTIONS).values(forged_entry(id=3)),
        insert(ENTRY_SIGNATURES).values(table_name="promotions", row_key="[3]", seal="signed: by me"),
    ],
    "an entry of an older dosel": lambda engine: [
        insert(PROMOTIONS).values(forged_entry(kind=None, metrics_before=None, metrics_after=None))
    ],
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_entry_with_a_computed_chain_is_not_followed(
    forgery: str, ledger: PromotionLedger, engine: Engine
) -> None:
    as_owner(engine, *FORGERIES[forgery](engine))
    assert verify(read_ledgers(engine, ()), ledger.keys.trusted()).problem == ""
    assert last(ledger) == (2, 2)
    assert [entry.to_version for entry in ledger.history(MODEL)] == [1, 2]
    assert ledger.unsigned(MODEL) == [3]
    assert ledger.verdicts(MODEL) == {}
    [sentence] = verify(read_ledgers(engine, ()), ledger.keys.trusted()).unsigned
    assert sentence.startswith(f"promotions 3 of {MODEL} (version 9) has no signature of a trusted key")
    # The next entry follows the last signed one.
    ledger.append(MODEL, 3, "a person", "better", Evidence(to_run=RUN), after=2)
    assert last(ledger) == (4, 3)
    assert [(entry.from_version, entry.to_version) for entry in ledger.history(MODEL)] == [(None, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("values", [{"to_version": 9}, {"model": "another"}, {"sequence": 7}, {"to_run": "0" * 32}])
def test_an_edited_entry_is_not_followed(values: dict[str, Any], ledger: PromotionLedger, engine: Engine) -> None:
    as_owner(engine, update(PROMOTIONS).where(PROMOTIONS.c.sequence == 2).values(values))
    assert last(ledger) == (1, 1)
    assert ledger.last("another") is None


def test_an_entry_signed_by_a_strangers_key_is_not_followed(
    ledger: PromotionLedger, engine: Engine, tmp_path: Path
) -> None:
    stranger = PromotionLedger(engine, Keys(Settings(signing_key=str(tmp_path / "stranger.pem"))))
    stranger.append(MODEL, 9, "a person", "better", Evidence(to_run=RUN))
    assert last(ledger) == (2, 2)
    assert last(stranger) == (3, 9)


def test_a_verdict_that_nobody_signed_lets_no_version_in(ledger: PromotionLedger, engine: Engine) -> None:
    ledger.add_verdict(MODEL, 3, RUN, Verdict(False, "worse"))
    ledger.add_verdict(MODEL, 4, RUN, Verdict(True, "better"))
    forged = {"model": MODEL, "version": 3, "run_id": RUN, "at": datetime(2026, 1, 1), "passed": 1, "reason": "better"}
    as_owner(engine, insert(VERDICTS).values(forged))
    assert not ledger.passed(MODEL, 3, RUN)
    assert ledger.passed(MODEL, 4, RUN)


def test_a_shadow_that_nobody_signed_is_not_open(ledger: PromotionLedger, engine: Engine) -> None:
    now = datetime.now(UTC)
    genuine = ShadowRecord(MODEL, 1, "challenger", 3, RUN, 2, 2, now, now + timedelta(days=1), "the DAG", "passed")
    ledger.start_shadow(genuine)
    with engine.begin() as connection:
        row = dict(connection.execute(select(SHADOWS)).mappings().one())
    as_owner(engine, insert(SHADOWS).values(row | {"id": None, "number": 2, "version": 9}))
    assert [shadow.version for shadow in ledger.open_shadows(MODEL)] == [3]


def test_a_request_that_nobody_signed_needs_no_fewer_people(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One person, who owns the database, writes a request of the gate, which needs one person."""
    rules = Approval(people=2, automatic=1)
    monkeypatch.setattr("dosel.registry.approvals.ALL", (replace(PENGUINS, approval=rules),))
    book = Approvals(engine, {"a" * 20: "ana", "b" * 20: "ben"}, Keys(settings))
    subject = Subject(MODEL, 7, RUN, "1" * 64, "2" * 64, 3, "manual")
    with pytest.raises(ApprovalsMissing):
        book.admit(subject, "API key ana", "better", "ana")
    with engine.begin() as connection:
        row = dict(connection.execute(select(APPROVAL_REQUESTS)).mappings().one())
    as_owner(engine, insert(APPROVAL_REQUESTS).values(row | {"id": None, "number": 2, "kind": "gate"}))
    with pytest.raises(ApprovalsMissing, match="waits for 1 more person"):
        book.admit(subject, "API key ana", "better", "ana")
    approved = book.admit(subject, "API key ben", "better", "ben")
    assert approved is not None
    assert approved.number == 1


class TestEntryKey:
    """A process without the signing key, such as the API in Compose."""

    @pytest.fixture
    def api(self, settings: Settings, tmp_path: Path) -> Settings:
        key = signing_key(settings)
        assert key is not None
        (tmp_path / "trusted.pem").write_bytes(b"".join(public.pem() for public in key.both.values()))
        return Settings(
            signing_key="none", trusted_keys=str(tmp_path / "trusted.pem"), entry_key=str(tmp_path / "entry.json")
        )

    def make(self, settings: Settings, api: Settings) -> bool:
        return write_entry_key(settings.model_copy(update={"entry_key": api.entry_key}))

    def test_entry_key_signs_entries_that_the_others_follow(
        self, engine: Engine, ledger: PromotionLedger, settings: Settings, api: Settings
    ) -> None:
        assert self.make(settings, api)
        of_api = PromotionLedger(engine, Keys(api))
        of_api.append(MODEL, 3, "API key ana", "better", Evidence(to_run=RUN))
        assert last(ledger) == last(of_api) == (3, 3)
        assert verify(read_ledgers(engine, ()), Keys(api).trusted()).first_problem == ""

    def test_entry_key_is_for_its_owner_alone_and_made_once(self, settings: Settings, api: Settings) -> None:
        assert self.make(settings, api)
        content = Path(api.entry_key).read_text()
        assert Path(api.entry_key).stat().st_mode & 0o777 == 0o600
        assert not self.make(settings, api)
        assert Path(api.entry_key).read_text() == content

    def test_entry_key_is_made_again_after_a_rotation(self, settings: Settings, api: Settings, tmp_path: Path) -> None:
        self.make(settings, api)
        assert self.make(Settings(signing_key=str(tmp_path / "new.pem")), api)

    def test_entry_key_of_a_revoked_key_signs_nothing_that_is_followed(
        self, engine: Engine, ledger: PromotionLedger, api: Settings, tmp_path: Path
    ) -> None:
        self.make(Settings(signing_key=str(tmp_path / "revoked.pem")), api)
        PromotionLedger(engine, Keys(api)).append(MODEL, 9, "API key ana", "better", Evidence(to_run=RUN))
        assert last(ledger) == (2, 2)

    def test_process_without_entry_key_adds_no_entry(self, engine: Engine, api: Settings) -> None:
        with pytest.raises(SettingsError, match="DOSEL_ENTRY_KEY names no key that the pipeline has made"):
            PromotionLedger(engine, Keys(api)).append(MODEL, 9, "API key ana", "better", Evidence(to_run=RUN))
        with engine.begin() as connection:
            assert connection.execute(select(PROMOTIONS)).first() is None

    def test_entry_key_that_others_may_read_is_refused(self, settings: Settings, api: Settings) -> None:
        self.make(settings, api)
        Path(api.entry_key).chmod(0o644)
        with pytest.raises(SettingsError, match="other users may read"):
            sign_entry(b"", api)

    @pytest.mark.parametrize("content", ["", "{}", '{"key": "00", "certificate": ""}', "[]"])
    def test_file_that_is_no_entry_key_is_refused(self, content: str, api: Settings) -> None:
        Path(api.entry_key).write_text(content)
        Path(api.entry_key).chmod(0o600)
        with pytest.raises(SettingsError, match=r"DOSEL_ENTRY_KEY: .*entry\.json cannot be used"):
            sign_entry(b"", api)

    def test_entry_key_cannot_certify_another_key(self, settings: Settings, api: Settings) -> None:
        self.make(settings, api)
        own = EntryKey.read(Path(api.entry_key).read_text())
        signer, certificate, raw, signature = own.sign(b"one").split(":")
        trusted = Keys(api).trusted()
        assert is_entry_signed(b"one", ":".join((signer, certificate, raw, signature)), trusted)
        assert not is_entry_signed(b"two", ":".join((signer, certificate, raw, signature)), trusted)
        for parts in ((signer, signature, raw, signature), (signer, certificate, signature[:64], signature), (signer,)):
            assert not is_entry_signed(b"one", ":".join(parts), trusted)


class TestUpgrade:
    """Entries of a dosel that did not sign them."""

    @pytest.fixture
    def older(self, ledger: PromotionLedger, engine: Engine) -> PromotionLedger:
        as_owner(engine, delete(ENTRY_SIGNATURES))
        return ledger

    def test_older_entries_are_followed_once_they_are_signed(self, older: PromotionLedger, engine: Engine) -> None:
        assert last(older) is None
        assert older.unsigned(MODEL) == [1, 2]
        signed, left = older.sign_older(every=False)
        assert signed == [f"promotions {number} of {MODEL} (version {number})" for number in (1, 2)]
        assert left == []
        assert last(older) == (2, 2)
        assert verify(read_ledgers(engine, ()), older.keys.trusted()).first_problem == ""
        assert older.sign_older(every=False) == ([], [])

    def test_entry_after_the_signing_counts_as_forged(self, older: PromotionLedger, engine: Engine) -> None:
        older.sign_older(every=False)
        with transaction(engine) as connection:
            chain.add(connection, PROMOTIONS, forged_entry())
        assert older.sign_older(every=False) == ([], [f"promotions 3 of {MODEL} (version 9)"])
        assert last(older) == (2, 2)
        older.sign_older(every=True)
        assert last(older) == (3, 9)
