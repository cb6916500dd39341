"""Two people for a promotion: one key must not be enough, whatever its holder does, also to the database."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, insert, select, update

from dosel.db import chain
from dosel.db.engine import connect, transaction
from dosel.db.migrations import migrate
from dosel.db.tables import APPROVAL_REQUESTS, APPROVALS, CHAIN, CHAIN_HEAD
from dosel.errors import ApprovalsMissing, PromotionRefused
from dosel.registry import approvals
from dosel.registry.approvals import Approvals, Request, Subject, needed
from dosel.registry.ledger_verification import read_ledgers, verify
from dosel.usecases import Approval
from dosel.usecases.penguins import PENGUINS
from dosel.warehouse.events import EventStore
from tests.ledgers import drop_triggers

NAMES = {"a" * 20: "ana", "b" * 20: "ben", "c" * 20: "cleo"}
SUBJECT = Subject(PENGUINS.model_name, 7, "f" * 32, "1" * 64, "2" * 64, 3, "manual")


@pytest.fixture(autouse=True)
def two_people(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, Approval(people=2, automatic=1))


def declare(monkeypatch: pytest.MonkeyPatch, approval: Approval) -> None:
    monkeypatch.setattr("dosel.registry.approvals.ALL", (replace(PENGUINS, approval=approval),))


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = connect(f"sqlite:///{tmp_path / 'warehouse.db'}")
    migrate(engine)
    return engine


@pytest.fixture
def book(engine: Engine) -> Approvals:
    return Approvals(engine, NAMES)


def ask(book: Approvals, holder: str | None, subject: Subject = SUBJECT) -> Request | None:
    """A person asks for a promotion, which is an approval; return the request that is approved, or None."""
    try:
        request = book.admit(subject, f"API key {holder}", "better", holder)
    except ApprovalsMissing:
        return None
    assert request is not None
    return request


def test_two_people_are_enough(book: Approvals, engine: Engine) -> None:
    with pytest.raises(
        ApprovalsMissing, match=r"version 7 waits for 1 more person \(so far: ana\), until .* request 1"
    ):
        book.admit(SUBJECT, "API key ana", "better", "ana")
    approved = ask(book, "ben")
    assert approved is not None
    assert (approved.number, approved.actor, approved.holders(NAMES)) == (1, "API key ana", ["ana", "ben"])
    # A call that is repeated after a kill finds the same.
    assert ask(book, "ana") == approved
    assert verify(read_ledgers(engine, ()), {}).problem == ""
    [event] = EventStore(engine).newest(5)
    assert (event.kind, event.evidence) == ("approval wanted", "better (by API key ana)")


def test_three_people_are_asked_for_if_declared(book: Approvals, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, Approval(people=3))
    assert [ask(book, name) is not None for name in ("ana", "ben", "ana", "cleo")] == [False, False, False, True]


def test_one_person_is_enough_for_what_the_gate_let_pass(book: Approvals) -> None:
    of_gate = replace(SUBJECT, kind="gate")
    assert ask(book, None, of_gate) is None
    # The person promotes by hand; the request of the gate is older, and needs one person.
    approved = ask(book, "ana")
    assert approved is not None
    assert (approved.subject.kind, approved.holders(NAMES)) == ("gate", ["ana"])


def test_no_request_is_made_if_one_person_is_enough(book: Approvals, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, Approval())
    for kind in ("manual", "gate", "shadow"):
        assert book.admit(replace(SUBJECT, kind=kind), "me", "why", None) is None
    assert book.of_model(SUBJECT.model) == []
    assert needed("a model without a declaration", "manual") == 0


@pytest.mark.parametrize("holder", [None, "dora"])
def test_nobody_without_a_known_key_can_ask(book: Approvals, holder: str | None) -> None:
    with pytest.raises(PromotionRefused, match="needs 2 people with keys of the role promoter"):
        book.admit(SUBJECT, "somebody", "why", holder)
    assert book.of_model(SUBJECT.model) == []


def test_the_same_key_counts_once(book: Approvals) -> None:
    assert [ask(book, "ana") for _ in range(3)] == [None] * 3
    [request] = book.of_model(SUBJECT.model)
    assert [given.holder for given in request.approvals] == ["ana"]


@pytest.mark.parametrize("spelling", ["ana", "Ana", "ANA", "a na", "Ana "])
def test_a_person_with_two_keys_counts_once(engine: Engine, spelling: str) -> None:
    names = {"a" * 20: "ana", "d" * 20: spelling}
    book = Approvals(engine, names)
    assert ask(book, "ana") is None
    assert ask(book, spelling) is None


def test_the_same_key_under_another_name_counts_once(engine: Engine) -> None:
    """Another process, or a later setting, has another name for the key."""
    assert ask(Approvals(engine, {"a" * 20: "ana"}), "ana") is None
    assert ask(Approvals(engine, {"a" * 20: "ben"}), "ben") is None
    assert ask(Approvals(engine, {"a" * 20: "ana", "b" * 20: "ben"}), "ana") is None


def test_an_approval_of_a_key_that_was_removed_does_not_count(engine: Engine) -> None:
    assert ask(Approvals(engine, NAMES), "ana") is None
    assert ask(Approvals(engine, {key: name for key, name in NAMES.items() if name != "ana"}), "ben") is None


def test_a_person_whose_key_was_replaced_approves_again(engine: Engine) -> None:
    assert ask(Approvals(engine, NAMES), "ana") is None
    replaced = {"n" * 20: "ana"} | {key: name for key, name in NAMES.items() if name != "ana"}
    book = Approvals(engine, replaced)
    assert ask(book, "ana") is None
    assert ask(book, "ben") is not None


def test_a_row_under_a_persons_name_does_not_keep_the_person_from_approving(engine: Engine) -> None:
    book = Approvals(engine, NAMES)
    assert ask(book, "ana") is None
    values = {"model": SUBJECT.model, "number": 1, "holder": "ben", "at": datetime.now(UTC).replace(tzinfo=None)}
    with transaction(engine) as connection:
        chain.add(connection, APPROVALS, values | {"mac": "0" * 64})
    assert ask(book, "ben") is not None


OTHERS: Mapping[str, Subject] = {
    "another version": replace(SUBJECT, version=8),
    "another run": replace(SUBJECT, run_id="e" * 32),
    "other files": replace(SUBJECT, manifest_digest="0" * 64),
    "another verdict": replace(SUBJECT, gate_digest="0" * 64),
    "after another entry": replace(SUBJECT, sequence=4),
}


@pytest.mark.parametrize("other", OTHERS)
def test_an_approval_counts_for_its_subject_only(book: Approvals, other: str) -> None:
    assert ask(book, "ana") is None
    assert ask(book, "ben", OTHERS[other]) is None
    assert [r.number for r in book.of_model(SUBJECT.model)] == [1, 2]


def test_an_expired_request_is_void(book: Approvals, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, Approval(people=2, hours=1e-9))
    assert ask(book, "ana") is None
    assert ask(book, "ben") is None
    assert book.open(SUBJECT.model, 3) == []
    declare(monkeypatch, Approval(people=2))
    assert ask(book, "ana") is None
    assert [r.number for r in book.open(SUBJECT.model, 3)] == [3]


def test_a_request_by_a_clock_that_is_ahead_does_not_count_before_its_time(
    book: Approvals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be open for longer than declared."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(days=30)

    with monkeypatch.context() as patch:
        patch.setattr(approvals, "datetime", Ahead)
        assert ask(book, "ana") is None
    assert book.open(SUBJECT.model, 3) == []
    assert ask(book, "ben") is None
    assert [r.number for r in book.open(SUBJECT.model, 3)] == [2]


def test_racing_approvals_of_one_key_count_once(engine: Engine) -> None:
    """Also without the model's lock, which the caller holds."""
    barrier, found = threading.Barrier(4), []
    ask(Approvals(engine, NAMES), "ben", replace(SUBJECT, version=1))

    def race() -> None:
        barrier.wait()
        found.append(ask(Approvals(engine, NAMES), "ana"))

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [None] * 4
    assert all(len(request.approvals) <= 1 for request in Approvals(engine, NAMES).of_model(SUBJECT.model))


def row(number: int, holder: str, mac: str) -> dict[str, object]:
    values = {"model": SUBJECT.model, "number": number, "holder": holder, "mac": mac}
    return {**values, "at": datetime(2026, 1, 1)}


def forged(book: Approvals, request: Request) -> Mapping[str, dict[str, object]]:
    """Rows that ana, who has a key and the database, can write in the name of ben."""
    other = next(r for r in book.of_model(SUBJECT.model) if r.subject.version == 8)
    return {
        "an invented code": row(request.number, "ben", "0" * 64),
        "no code": row(request.number, "ben", ""),
        "a code that is no ASCII": row(request.number, "ben", "é" * 64),
        "the code of ana's key": row(request.number, "ben", request.mac("a" * 20)),
        "the code of a key that nobody has": row(request.number, "ben", request.mac("x" * 20)),
        "ben's code of another version": row(request.number, "ben", other.approvals[0].mac),
    }


@pytest.mark.parametrize("in_chain", [False, True], ids=["without an entry", "with a computed entry"])
@pytest.mark.parametrize(
    "forgery",
    [
        "an invented code",
        "no code",
        "a code that is no ASCII",
        "the code of ana's key",
        "the code of a key that nobody has",
        "ben's code of another version",
    ],
)
def test_an_approval_inserted_in_the_database_does_not_count(
    book: Approvals, engine: Engine, forgery: str, in_chain: bool
) -> None:
    ask(book, "ben", replace(SUBJECT, version=8))
    ask(book, "cleo", SUBJECT)
    request = next(r for r in book.of_model(SUBJECT.model) if r.subject.version == 7)
    values = forged(book, request)[forgery]
    with transaction(engine) as connection:
        if in_chain:
            chain.add(connection, APPROVALS, values)
        else:
            connection.execute(insert(APPROVALS).values(values))
    assert ask(book, "cleo") is None
    [known] = [r for r in book.of_model(SUBJECT.model) if r.number == request.number]
    assert known.holders(NAMES) == ["cleo"]


def test_a_genuine_approval_without_an_entry_in_the_chain_does_not_count(book: Approvals, engine: Engine) -> None:
    ask(book, "ana")
    [request] = book.of_model(SUBJECT.model)
    with transaction(engine) as connection:
        connection.execute(insert(APPROVALS).values(row(1, "ben", request.mac("b" * 20))))
    assert ask(book, "ana") is None


Edit = Callable[[Engine], object]


def edit(engine: Engine, *statements: object) -> None:
    with transaction(engine) as connection:
        drop_triggers(connection)
        for statement in statements:
            connection.execute(statement)  # type: ignore[call-overload]


def edit_and_seal(engine: Engine, *statements: object) -> None:
    """Edit as the owner of the database, and compute the chain again."""
    edit(engine, *statements, delete(CHAIN), delete(CHAIN_HEAD))
    with transaction(engine) as connection:
        chain.start(connection)


@pytest.mark.parametrize("change", [edit, edit_and_seal])
@pytest.mark.parametrize(
    "values",
    [
        {"version": 8},
        {"manifest_digest": "0" * 64},
        {"gate_digest": "0" * 64},
        {"sequence": 4},
        {"kind": "gate"},
        {"reason": "another"},
        {"expires_at": datetime(2100, 1, 1)},
    ],
    ids=lambda values: next(iter(values)),
)
def test_an_approval_of_an_edited_request_does_not_count(
    book: Approvals, engine: Engine, change: Callable[..., None], values: dict[str, object]
) -> None:
    ask(book, "ana")
    change(engine, update(APPROVAL_REQUESTS).values(values))
    assert all(request.holders(NAMES) == [] for request in book.of_model(SUBJECT.model))


@pytest.mark.parametrize("change", [edit, edit_and_seal])
def test_an_approval_moved_to_another_person_does_not_count(
    book: Approvals, engine: Engine, change: Callable[..., None]
) -> None:
    ask(book, "ana")
    change(engine, update(APPROVALS).values(holder="ben"))
    assert ask(book, "ana") is None


def test_triggers_protect_requests_and_approvals(book: Approvals, engine: Engine) -> None:
    ask(book, "ana")
    for statement in (update(APPROVAL_REQUESTS).values(sequence=0), delete(APPROVALS)):
        with pytest.raises(Exception, match="only added"), engine.begin() as connection:
            connection.execute(statement)


def test_expiry_is_as_declared(book: Approvals, engine: Engine) -> None:
    ask(book, "ana")
    with engine.begin() as connection:
        found = connection.execute(select(APPROVAL_REQUESTS)).one()
    assert found.expires_at - found.at == timedelta(hours=Approval().hours)
