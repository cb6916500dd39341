"""The promotion ledger: entries are only added, and each one follows from the entry before."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from sqlalchemy import Engine, insert, select

from dosel.db.engine import connect
from dosel.db.tables import NOTES, VERDICTS
from dosel.db.types import MOST_TEXT
from dosel.errors import WarehouseError
from dosel.registry.ledger import Promotion, PromotionLedger
from dosel.registry.verdicts import Verdict

pytestmark = pytest.mark.storage


def assert_is_chain(history: list[Promotion]) -> None:
    assert [entry.sequence for entry in history] == list(range(1, len(history) + 1))
    assert [entry.from_version for entry in history] == [None, *(entry.to_version for entry in history)][:-1]


def test_an_entry_has_version_time_actor_and_reason(engine: Engine) -> None:
    before = datetime.now(UTC)
    entry = PromotionLedger(engine).append("m", 3, "me", "accuracy 0.9; it was ñ")
    assert before - timedelta(seconds=1) <= entry.at <= datetime.now(UTC) + timedelta(seconds=1)
    assert entry == Promotion("m", 1, None, 3, entry.at, "me", "accuracy 0.9; it was ñ")
    assert PromotionLedger(engine).last("m") == entry


def test_a_model_without_promotions_has_no_history(engine: Engine) -> None:
    ledger = PromotionLedger(engine)
    assert ledger.last("m") is None
    assert ledger.history("m") == []


def test_each_entry_starts_from_the_version_of_the_entry_before(engine: Engine) -> None:
    ledger = PromotionLedger(engine)
    entries = [ledger.append("m", version, "me", f"reason {version}") for version in (1, 4, 2, 4)]
    assert ledger.history("m") == entries
    assert_is_chain(entries)
    assert [entry.to_version for entry in entries] == [1, 4, 2, 4]
    assert ledger.last("m") == entries[-1]


def test_the_sequences_of_several_models_are_read_together(engine: Engine) -> None:
    ledger = PromotionLedger(engine)
    for model, version in (("a", 1), ("b", 1), ("a", 2)):
        ledger.append(model, version, "me", "why")
    assert ledger.sequences(["a", "b", "empty"]) == {"a": 2, "b": 1, "empty": 0}
    assert ledger.sequences([]) == {}


def test_long_texts_are_cut_to_the_columns(engine: Engine) -> None:
    ledger, text = PromotionLedger(engine), "🌲" * 70_000
    verdict = Verdict(False, text)
    for _ in range(2):
        ledger.add_verdict("m", 3, "r" * 32, verdict)
    assert ledger.verdicts("m") == {(3, "r" * 32): verdict}
    assert verdict.reason == "🌲" * MOST_TEXT
    assert [ledger.note("m", text), ledger.note("m", text)] == [True, False]
    assert [note.text for note in ledger.notes("m")] == ["🌲" * MOST_TEXT]
    assert ledger.append("m", 3, "me", text).reason == "🌲" * MOST_TEXT


def test_promoting_the_version_in_production_adds_no_entry(engine: Engine) -> None:
    ledger = PromotionLedger(engine)
    first = ledger.append("m", 1, "me", "why")
    assert ledger.append("m", 1, "somebody else", "for another reason") == first
    assert ledger.history("m") == [first]


def test_each_model_has_its_own_history(engine: Engine) -> None:
    ledger = PromotionLedger(engine)
    ledger.append("m", 1, "me", "why")
    assert ledger.append("M", 7, "me", "why").from_version is None
    assert ledger.append("m", 2, "me", "why").from_version == 1
    assert [entry.sequence for entry in ledger.history("M")] == [1]


class Clock:
    """A clock whose time a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
        self.set(now)
        for module in ("ledger", "notes"):
            monkeypatch.setattr(f"dosel.registry.{module}.datetime", self)

    def set(self, now: datetime) -> None:
        self._now = now

    def now(self, _: object) -> datetime:
        return self._now


NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.mark.parametrize("ahead", [timedelta(days=30), timedelta(minutes=1)])
def test_an_entry_ahead_of_the_clock_is_noted_and_changes_no_order(
    ahead: timedelta, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, clock = PromotionLedger(engine), Clock(monkeypatch, NOON + ahead)
    first = ledger.append("m", 1, "me", "by a fast clock")
    clock.set(NOON)
    assert ledger.history("m", NOON) == [first] == [ledger.last("m")]
    second = ledger.append("m", 2, "me", "after the clock was set right")
    assert second.at == first.at == NOON + ahead
    assert [note.sequence for note in ledger.notes("m")] == [1]
    assert "the clock jumped: entry 1 is dated" in ledger.notes("m")[0].text
    assert ledger.history("m", NOON)[-1] == ledger.last("m") == second
    assert ledger.history("m", NOON - timedelta(hours=1)) == []


def test_a_note_that_the_chain_does_not_have_is_passed_over(engine: Engine) -> None:
    """The chain has no key: somebody who adds an entry to it, too, is found by the next signed head."""
    ledger = PromotionLedger(engine)
    ledger.append("m", 1, "me", "why")
    ledger.note("m", "true")
    foreign = {"model": "m", "sequence": 1, "at": NOON.replace(tzinfo=None), "text": "run pip install hotfix"}
    with engine.begin() as connection:
        connection.execute(insert(NOTES).values(foreign))
    assert [note.text for note in ledger.notes("m")] == ["true"]


def test_a_small_difference_of_clocks_is_not_noted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, clock = PromotionLedger(engine), Clock(monkeypatch, NOON)
    first = ledger.append("m", 1, "me", "why")
    clock.set(NOON - timedelta(seconds=2))
    assert ledger.append("m", 2, "me", "why").at == first.at
    assert ledger.notes("m") == []


def test_concurrent_promotions_leave_the_chain_valid(engine: Engine, warehouse_url: str) -> None:
    """A promotion that loses the race is refused, and succeeds when it is repeated on the new state."""
    PromotionLedger(engine)
    together = Barrier(8)

    def promote(version: int) -> None:
        mine = connect(warehouse_url)
        ledger = PromotionLedger(mine)
        together.wait(10)
        for _ in range(8):
            try:
                ledger.append("m", version, f"thread {version}", "a race")
            except WarehouseError:
                continue
            break
        mine.dispose()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(promote, range(1, 9)))
    history = PromotionLedger(engine).history("m")
    assert_is_chain(history)
    assert sorted(entry.to_version for entry in history) == list(range(1, 9))


def test_concurrent_promotions_of_one_version_add_one_entry(engine: Engine, warehouse_url: str) -> None:
    PromotionLedger(engine)
    together = Barrier(6)

    def promote(_: int) -> None:
        mine = connect(warehouse_url)
        ledger = PromotionLedger(mine)
        together.wait(10)
        with suppress(WarehouseError):
            ledger.append("m", 1, "me", "why")
        mine.dispose()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(promote, range(6)))
    assert len(PromotionLedger(engine).history("m")) == 1


def test_a_lock_without_a_data_store_raises_a_clear_error(schema: str) -> None:
    nowhere = connect(f"{schema}_that_is_not_there")
    with (
        pytest.raises(WarehouseError, match="schema exist"),
        PromotionLedger(nowhere).lock("m"),
    ):
        pass


def test_a_verdict_that_nobody_signed_is_passed_over(engine: Engine) -> None:
    """Who can write to the data store could otherwise have the API and the card show its figures."""
    ledger = PromotionLedger(engine)
    ledger.add_verdict("m", 1, "run", Verdict(True, "better", {"metrics": {"challenger": {"accuracy": 0.9}}}))
    with engine.begin() as connection:
        [row] = connection.execute(select(VERDICTS)).mappings().all()
        forged = dict(row) | {"id": row["id"] + 1, "passed": 0, "reason": "forged", "report": "{}"}
        connection.execute(insert(VERDICTS), forged)
        connection.execute(insert(VERDICTS), forged | {"id": row["id"] + 2, "report": None})
    assert ledger.verdicts("m")[1, "run"].reason == "better"
    assert ledger.passed("m", 1, "run")
