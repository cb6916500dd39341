"""Truth about logged answers counts once, in both kinds of data store, also after kills."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, func, select

from dosel.db.tables import ANSWERS, FEEDBACK, TRUTHS
from dosel.errors import TruthConflict, UnknownAnswers, WarehouseError
from dosel.monitor import feedback, joining
from dosel.monitor.feedback import FeedbackStore, Receipt
from dosel.monitor.feedback_rows import GivenTruth
from dosel.monitor.joining import add_batch
from dosel.monitor.truths import Truths, TruthStore
from dosel.registry.ledger import PromotionLedger
from dosel.usecases.covertype import COVERTYPE
from dosel.warehouse.predictions import AnswerRecord, PredictionStore
from dosel.warehouse.retention import prune

pytestmark = pytest.mark.storage

NAME = COVERTYPE.model_name


@pytest.fixture
def ledger(engine: Engine) -> PromotionLedger:
    """A ledger whose first entry promotes version 1."""
    ledger = PromotionLedger(engine)
    ledger.append(NAME, 1, "a test", "first")
    return ledger


@pytest.fixture
def store(engine: Engine, ledger: PromotionLedger) -> FeedbackStore:
    return FeedbackStore(engine, COVERTYPE, ledger)


def answered(engine: Engine, *keys: int, name: str = "r", version: int = 1, days_ago: float = 0) -> None:
    """Log a request whose rows have these feature keys, each answered with class 2."""
    at = datetime.now(UTC).timestamp() - days_ago * 86_400
    PredictionStore(engine, 10_000_000).append(
        [
            AnswerRecord(name, i, len(keys), None, at, COVERTYPE.name, NAME, version, "{}", key, "{}", 2)
            for i, key in enumerate(keys, 1)
        ]
    )


def given(*truths: int, name: str = "r") -> list[GivenTruth]:
    return [GivenTruth(name, row_no, truth) for row_no, truth in enumerate(truths, 1)]


def batch(*truths: int, reference: str = "7", sequence: int = 1) -> Truths:
    classes = np.array(truths, np.int64)
    now = datetime.now(UTC)
    return Truths(COVERTYPE.name, NAME, sequence, 1, "batch", reference, now, classes, np.full_like(classes, 2))


def labelled(engine: Engine, sequence: int = 1) -> list[int]:
    """The true classes of a version's labelled rows, in their order."""
    return [int(truth) for part in TruthStore(engine).of(NAME, sequence) for truth in part.truth]


def count(engine: Engine, table: Any) -> int:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def test_repeated_feedback_counts_once(engine: Engine, store: FeedbackStore) -> None:
    answered(engine, 1, 2, 3)
    assert store.add(given(2, 3)) == Receipt(2, 0, 0, 0)
    assert store.add(given(2, 3)) == Receipt(0, 2, 0, 0)
    assert store.add(given(2, 3, 4)) == Receipt(1, 2, 0, 0)
    assert labelled(engine) == [2, 3, 4]


def test_two_concurrent_calls_store_one_truth(
    engine: Engine, store: FeedbackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(engine, 1)
    look, others = feedback._logged, iter([store])

    def overtaken(*arguments: Any) -> Any:
        """Read as two concurrent calls do: before the other call stores its truth."""
        found = look(*arguments)
        if engine.dialect.name != "sqlite" and (other := next(others, None)) is not None:
            other.add(given(2))
        return found

    monkeypatch.setattr(feedback, "_logged", overtaken)
    assert sum(store.add(given(2)).accepted for _ in range(2)) == (1 if engine.dialect.name == "sqlite" else 0)
    assert labelled(engine) == [2]


def test_feedback_is_stored_by_the_next_call_after_a_kill(
    engine: Engine, store: FeedbackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(engine, 1, 2)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(feedback, "insert_truths", killed)
        with pytest.raises(KeyboardInterrupt):
            store.add(given(2, 3))
    assert (count(engine, FEEDBACK), labelled(engine)) == (0, [])
    assert store.add(given(2, 3)).accepted == 2
    assert labelled(engine) == [2, 3]


@pytest.mark.parametrize("wrong", [given(2, 2, 5), given(3), given(2, 2, 2, 2), given(2, name="x")], ids=str)
def test_a_call_is_stored_completely_or_not_at_all(
    engine: Engine, store: FeedbackStore, wrong: list[GivenTruth]
) -> None:
    answered(engine, 1, 2, 3)
    store.add(given(2))
    store.add([GivenTruth("r", 3, 4)])
    with pytest.raises((TruthConflict, UnknownAnswers)):
        store.add(wrong)
    assert labelled(engine) == [2, 4]


def test_truth_counts_for_the_promotion_under_which_the_version_answered(
    engine: Engine, store: FeedbackStore, ledger: PromotionLedger
) -> None:
    answered(engine, 1, name="first")
    ledger.append(NAME, 2, "a test", "better")
    answered(engine, 2, name="second", version=2)
    answered(engine, 3, name="a family", version=9)
    truths = [GivenTruth(name, 1, truth) for name, truth in (("first", 1), ("second", 2), ("a family", 3))]
    assert store.add(truths).accepted == 3
    assert (labelled(engine, 1), labelled(engine, 2)) == ([1], [2])


def test_a_batch_row_is_joined_to_answers_by_its_features_and_counts_once(engine: Engine, store: FeedbackStore) -> None:
    answered(engine, 10, 11, 12)
    assert add_batch(engine, batch(3, 4), np.array([10, 99]))
    assert not add_batch(engine, batch(3, 4), np.array([10, 99]))
    assert labelled(engine) == [3, 4]
    assert store.add(given(3)) == Receipt(0, 0, 1, 0)
    with pytest.raises(TruthConflict):
        store.add(given(5))
    assert labelled(engine) == [3, 4]


@pytest.mark.parametrize("truth", [3, 5])
def test_a_closed_batch_leaves_answers_and_feedback_alone(
    engine: Engine, store: FeedbackStore, ledger: PromotionLedger, truth: int
) -> None:
    """Whether feedback comes before or after the batch, no count and no answer tells what the batch has."""
    answered(engine, 10, 11)
    assert store.add(given(truth)) == Receipt(1, 0, 0, 0)
    assert add_batch(engine, batch(3, 4), np.array([10, 11]), joins=False)
    assert labelled(engine) == [truth, 3, 4]
    entry = ledger.last(NAME)
    assert entry is not None
    assert TruthStore(engine).coverage(COVERTYPE.name, entry).labelled == 1
    assert store.add(given(truth, truth)) == Receipt(1, 1, 0, 0)
    assert labelled(engine) == [truth, 3, 4, truth]


def test_a_batch_row_with_earlier_feedback_counts_once(engine: Engine, store: FeedbackStore) -> None:
    answered(engine, 10, 11)
    store.add(given(3, 4))
    assert add_batch(engine, batch(3, 5, 2), np.array([10, 11, 12]))
    # The same features with another class are another row.
    assert labelled(engine) == [3, 4, 5, 2]
    # The next version answers the batch again.
    assert add_batch(engine, batch(3, sequence=2), np.array([10]))
    assert labelled(engine, 2) == [3]


def test_rows_with_the_same_features_and_different_classes_are_not_joined(engine: Engine, store: FeedbackStore) -> None:
    answered(engine, 10)
    add_batch(engine, batch(3, 4), np.array([10, 10]))
    assert count(engine, FEEDBACK) == 0
    assert store.add(given(3)).accepted == 1


def test_a_batch_is_added_by_the_next_call_after_a_kill(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    TruthStore(engine)
    answered(engine, 10)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(joining, "feedback_row", killed)
        with pytest.raises(KeyboardInterrupt):
            add_batch(engine, batch(3), np.array([10]))
    assert (count(engine, FEEDBACK), count(engine, TRUTHS)) == (0, 0)
    assert add_batch(engine, batch(3), np.array([10]))
    assert (count(engine, FEEDBACK), labelled(engine)) == (1, [3])


def test_coverage_and_delay_count_the_version_in_production_only(
    engine: Engine, store: FeedbackStore, ledger: PromotionLedger
) -> None:
    entry = ledger.last(NAME)
    assert entry is not None
    truths = TruthStore(engine)
    assert truths.coverage(COVERTYPE.name, entry).share is None
    answered(engine, 1, 2, 3, 4)
    answered(engine, 5, name="another", version=2)
    store.add(given(2))
    add_batch(engine, batch(3), np.array([2]))
    found = truths.coverage(COVERTYPE.name, entry)
    assert (found.answers, found.labelled, found.share) == (4, 2, 0.5)
    assert found.delay_median is not None
    assert found.delay_p90 is not None
    assert 0 <= found.delay_median <= found.delay_p90 < 60


def test_a_full_log_takes_no_more_answers_until_the_oldest_are_deleted(engine: Engine) -> None:
    answered(engine, *range(20))
    full = PredictionStore(engine, 10)
    record = AnswerRecord("next", 1, 1, None, 0.0, COVERTYPE.name, NAME, 1, "{}", 7, "{}", 2)
    with pytest.raises(WarehouseError, match="is full: 10 rows"):
        full.append([record])
    assert prune(engine, 90, 10) == 11
    full.append([record._replace(at=datetime.now(UTC).timestamp())])
    assert count(engine, ANSWERS) == 10


def test_old_answers_are_deleted_with_their_feedback_and_labelled_rows_stay(
    engine: Engine, store: FeedbackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dosel.warehouse.retention.CHUNK", 2)
    answered(engine, *range(5), name="old", days_ago=91)
    answered(engine, 7, name="new", days_ago=89)
    store.add([*given(1, 2, name="old"), *given(3, name="new")])
    before = sum(part.truth.size for part in TruthStore(engine).of(NAME, 1))
    assert prune(engine, 90, 10_000_000) == 5
    assert prune(engine, 90, 10_000_000) == 0
    assert (count(engine, ANSWERS), count(engine, FEEDBACK)) == (1, 1)
    assert sum(part.truth.size for part in TruthStore(engine).of(NAME, 1)) == before
    with pytest.raises(UnknownAnswers):
        store.add(given(1, name="old"))
