"""Shadow serving: sampling, the canary's share, latency limits and the queue."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app.serving import shadow_answers
from app.serving.prediction_log import LogEntry
from app.serving.shadow_answers import ShadowAnswers
from app.serving.shadow_decider import AGAIN_SECONDS, BEHIND_SECONDS, EVERY_SECONDS, ShadowDecider
from app.serving.shadow_limits import FLOOR_MS, SLOW, WINDOW_SECONDS, BusyThread, LatencyLimit
from app.serving.shadow_scorer import DirectScorer, Scored, answers_of
from app.serving.shadow_slot import Canary, Plan, RunningShadow, ShadowSlot
from dosel.errors import WarehouseError
from dosel.model.predictor import Prediction, Scores
from dosel.monitor import shadowing
from dosel.usecases import Shadow
from dosel.usecases.covertype import COVERTYPE

NOTHING: Any = None
NUMBER, CATEGORY = COVERTYPE.numbers[0], COVERTYPE.categories[0]


class Predictor:
    def one(self, *_: Any) -> Prediction:
        return Prediction(1, "x", {"x": 1.0})

    def scores(self, numbers: npt.NDArray[np.float64], codes: npt.NDArray[np.intp]) -> Scores:
        return Scores(np.zeros(len(numbers), np.intp), np.ones((len(codes), 1)))

    def at(self, scores: Scores, place: int) -> Prediction:
        return Prediction(place, "x", {"x": 1.0})


def model(version: int) -> Any:
    return SimpleNamespace(predictor=Predictor(), version=SimpleNamespace(name="vf", version=version))


def shadow(number: int = 1, version: int = 2, role: str = "challenger") -> RunningShadow:
    known: Any = SimpleNamespace(model="vf", number=number, version=version, champion=1, role=role)
    return RunningShadow(known, model(version))


def entry(name: str, version: int = 1, row_no: int = 1) -> LogEntry:
    return LogEntry(name, None, 1.0, COVERTYPE.name, "vf", version, (), (), b"", row_no)


def canary(share: float, feature: str, number: int = 1) -> Canary:
    made = Canary.of(COVERTYPE, Shadow(share=share, sticky_by=feature), shadow(number))
    assert made is not None
    return made


# Sampling.


def test_every_worker_samples_the_same_declared_share_of_rows() -> None:
    names = [f"0123456789ab-{i:x}" for i in range(4_000)]
    first, second = (Plan(1, 0.25, (shadow(),)) for _ in range(2))
    drawn = [first.samples(1, name, 1) for name in names]
    assert drawn == [second.samples(1, name, 1) for name in names]
    assert 0.22 < sum(drawn) / len(names) < 0.28
    of_bulk = [first.samples(1, "0123456789ab-1", row) for row in range(1, 4_001)]
    assert 0.22 < sum(of_bulk) / len(of_bulk) < 0.28


def test_only_answers_of_the_champion_are_sampled() -> None:
    assert Plan(1, 1.0, (shadow(),)).samples(1, "a", 1)
    assert not Plan(1, 1.0, (shadow(),)).samples(2, "a", 1)


@pytest.mark.parametrize("feature", [NUMBER.name, CATEGORY.name])
def test_a_canary_chooses_rows_by_the_value_of_its_feature_only(feature: str) -> None:
    made = canary(0.3, feature)
    drawn = []
    for value in range(2_000):
        numbers, codes = [7.0] * len(COVERTYPE.numbers), [0] * len(COVERTYPE.categories)
        (numbers if feature == NUMBER.name else codes)[0] = value
        takes = made.takes(numbers, codes)
        assert takes == made.takes([numbers[0], *([9.0] * (len(numbers) - 1))], codes)
        drawn.append(takes)
    assert 0.26 < sum(drawn) / len(drawn) < 0.34
    other = canary(0.3, feature, number=2)
    again = [other.takes([float(v), 7.0], [v, 0]) for v in range(2_000)]
    assert 0.05 < sum(a and b for a, b in zip(drawn, again, strict=True)) / len(drawn) < 0.14


def test_a_canary_takes_no_row_without_its_feature_and_treats_equal_numbers_alike() -> None:
    by_number, by_category = canary(0.999, NUMBER.name), canary(0.999, CATEGORY.name)
    assert by_number.takes([1.0], [0])
    assert not by_number.takes([float("nan")], [0])
    assert by_category.takes([1.0], [0])
    assert not by_category.takes([1.0], [-1])
    for number in range(50):
        half = canary(0.5, NUMBER.name, number)
        assert half.takes([0.0], [0]) == half.takes([-0.0], [0])


def test_only_a_challenger_is_a_canary() -> None:
    declared = Shadow(share=0.5, sticky_by=NUMBER.name)
    assert Canary.of(COVERTYPE, declared, shadow(role="control")) is None
    assert Canary.of(COVERTYPE, Shadow(), shadow()) is None


def test_a_canary_takes_no_rows_of_a_new_champion() -> None:
    plan = Plan(1, 1.0, (shadow(),), canary(0.999, NUMBER.name))
    assert plan.answer(model(1), [1.0], [0])[0].version.version == 2
    assert plan.answer(model(3), [1.0], [0])[0].version.version == 3


# Limits.


def test_a_version_is_too_slow_once_its_p99_is_above_50_ms() -> None:
    limit = LatencyLimit()
    for _ in range(2_000):
        assert not limit.add(FLOOR_MS, 0.1)
    assert [bool(limit.add(FLOOR_MS + 1, 0.1)) for _ in range(SLOW + 1)] == [False] * SLOW + [True]
    assert limit.add(FLOOR_MS + 1, 0.1) == "12 of its last 1,000 answers took more than 50 ms"


def test_a_version_may_take_ten_times_as_long_as_a_slow_champion() -> None:
    limit = LatencyLimit()
    assert not any(limit.add(99.0, 10.0) for _ in range(1_000))
    assert any(limit.add(101.0, 10.0) for _ in range(SLOW + 1))


def test_old_slow_answers_do_not_count() -> None:
    limit = LatencyLimit()
    for _ in range(3):
        assert not any(limit.add(FLOOR_MS + 1) for _ in range(SLOW))
        assert not any(limit.add(1.0) for _ in range(1_000))


@pytest.mark.parametrize("spins", [True, False])
def test_a_running_thread_is_busy_and_a_waiting_one_is_not(spins: bool) -> None:
    ended = threading.Event()

    def run() -> None:
        while spins and not ended.is_set():
            sum(range(1_000))
        ended.wait()

    thread = threading.Thread(target=run)
    thread.start()
    watched, deadline = BusyThread(thread), time.monotonic() + (10 if spins else 3 * WINDOW_SECONDS)
    while not watched.is_busy() and time.monotonic() < deadline:
        thread.join(WINDOW_SECONDS / 3)
    is_busy = watched.is_busy()
    ended.set()
    thread.join()
    assert is_busy == spins


# The queue.


class Store:
    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.is_away = False

    def in_shadow(self, blocks: list[bytes]) -> None:
        if self.is_away:
            raise WarehouseError("the data store cannot be reached")
        self.kept += [answer for block in blocks for answer in answers_of(block)]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def answers(store: Store) -> ShadowAnswers:
    """A queue without a thread: the test calls its work."""
    return ShadowAnswers(0.25, DirectScorer(), store.in_shadow)


def slot(*running: RunningShadow, sample: float = 1.0) -> ShadowSlot:
    return ShadowSlot(COVERTYPE, Plan(1, sample, running))


def test_each_shadow_answers_the_champions_row(answers: ShadowAnswers, store: Store) -> None:
    mine = slot(shadow(1), shadow(2, role="control"))
    answers.offer(mine, entry("a"), 0.5)
    answers.offer(mine, entry("b", version=9), 0.5)
    answers._work()
    answers.flush()
    assert [(a.number, a.request_id, a.champion_latency) for a in store.kept] == [(1, "a", 0.5), (2, "a", 0.5)]


def test_rows_for_the_same_shadows_are_answered_together(answers: ShadowAnswers, store: Store) -> None:
    covertype, other = slot(shadow(1)), slot(shadow(2))
    for mine, names in ((covertype, "abc"), (other, "d"), (covertype, "e")):
        for name in names:
            answers.offer(mine, entry(name), None)
    answers._work()
    answers.flush()
    # `at` numbers them from 0.
    assert [(a.request_id, a.answered) for a in store.kept] == [("a", 0), ("b", 1), ("c", 2)]
    assert len({a.latency for a in store.kept}) == 1
    assert (answers.waiting, covertype.answered) == (2, 3)


def test_a_version_that_fails_on_later_rows_stops_answering(answers: ShadowAnswers, store: Store) -> None:
    faulty = shadow()
    broken: Any = SimpleNamespace(one=Predictor().one, scores=lambda *_: 1 / 0)
    faulty.loaded = SimpleNamespace(version=faulty.loaded.version, predictor=broken)  # type: ignore[assignment]
    mine = slot(faulty)
    for name in "ab":
        answers.offer(mine, entry(name), None)
    answers._work()
    answers.flush()
    assert (faulty.fault, store.kept) == ("it could not answer a row (ZeroDivisionError)", [])


def test_a_full_queue_drops_further_rows(answers: ShadowAnswers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_answers, "WAITING", 2)
    mine = slot(shadow())
    for name in "abcd":
        answers.offer(mine, entry(name), None)
    assert (answers.waiting, mine.dropped) == (2, 2)


def test_waiting_rows_are_dropped_while_requests_need_the_processor(answers: ShadowAnswers, store: Store) -> None:
    mine, busy = slot(shadow()), True
    requests: Any = SimpleNamespace(is_busy=lambda: busy)
    answers._requests = requests
    answers.offer(mine, entry("a"), None)
    answers._work()
    assert (answers.waiting, mine.dropped) == (0, 1)
    busy = False
    answers.offer(mine, entry("b"), None)
    answers._work()
    answers.flush()
    assert [a.request_id for a in store.kept] == ["b"]


def test_the_thread_pauses_to_stay_within_its_share_of_the_processor(answers: ShadowAnswers) -> None:
    mine = slot(shadow())
    # One row is left, for which the thread works on after its pause.
    for i in range(shadow_answers.BLOCK + 1):
        answers.offer(mine, entry(str(i)), None)
    began = time.thread_time()
    pause = answers._work()
    assert 0 < pause <= 3 * (time.thread_time() - began)


def test_rows_of_a_shadow_that_has_ended_are_not_answered(answers: ShadowAnswers, store: Store) -> None:
    mine = slot(shadow())
    answers.offer(mine, entry("a"), None)
    mine.plan = None
    answers._work()
    answers.flush()
    assert (store.kept, mine.dropped) == ([], 0)


def test_answers_wait_while_the_data_store_is_down(answers: ShadowAnswers, store: Store) -> None:
    mine, store.is_away = slot(shadow()), True
    answers.offer(mine, entry("a"), None)
    answers._work()
    answers.flush()
    store.is_away = False
    answers.flush()
    assert [a.request_id for a in store.kept] == ["a"]


def test_rows_that_are_being_scored_are_not_answered_yet(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_answers, "FLUSH_SECONDS", 0)
    flushed = []

    class Flushing(DirectScorer):
        def score(self, loaded: Any, number: int, rows: Any) -> Scored:
            flushed.append(queue.flush())
            return super().score(loaded, number, rows)

    queue = ShadowAnswers(0.25, Flushing(), store.in_shadow)
    queue.offer(slot(shadow()), entry("a"), None)
    queue._work()
    assert (flushed, queue.flush(), len(store.kept)) == ([False], True, 1)


def test_a_version_that_fails_stops_answering(answers: ShadowAnswers, store: Store) -> None:
    faulty = shadow()
    broken: Any = SimpleNamespace(version=faulty.loaded.version, predictor=SimpleNamespace(one=lambda *_: 1 / 0))
    faulty.loaded = broken
    mine = slot(faulty, shadow(2, role="control"))
    answers.offer(mine, entry("a"), None)
    answers._work()
    answers.flush()
    assert faulty.fault == "it could not answer a row (ZeroDivisionError)"
    assert [a.number for a in store.kept] == [2]


def test_a_fault_that_was_found_meanwhile_stays() -> None:
    running = shadow()

    class Faulty(DirectScorer):
        def score(self, *rows: Any) -> Scored:
            # As a request of the canary does in another thread.
            running.fault = "it is broken"
            return super().score(*rows)

    assert running.answer_all(Faulty(), [(entry("a"), None)]) is None
    assert running.fault == "it is broken"


# Decisions.


@pytest.mark.parametrize(
    ("complete", "after", "pause"),
    [(True, 1.5, EVERY_SECONDS), (False, 1.5, AGAIN_SECONDS), (False, BEHIND_SECONDS, EVERY_SECONDS)],
    ids=["all answers", "answers are late", "answers are late for long"],
)
def test_a_decision_is_repeated_soon_while_answers_are_late(
    monkeypatch: pytest.MonkeyPatch, complete: bool, after: float, pause: float
) -> None:
    clock, decided = [100.0], list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def decide(*_: object) -> list[object]:
        decided.append(clock[0])
        return []

    monkeypatch.setattr(shadowing, "decide", decide)
    follower: Any = SimpleNamespace(loaded=lambda _: model(1), registry=lambda: None)
    mine = slot(shadow())
    decider = ShadowDecider(follower, {COVERTYPE.name: mine}, lambda: NOTHING, lambda: complete, lambda: None)
    last = decider._last[COVERTYPE.name]
    decider.wake(COVERTYPE.name)
    decider._look(mine, last)
    assert last.due == clock[0] + AGAIN_SECONDS
    clock[0] += after
    decider._look(mine, last)
    assert (last.due, decided) == (clock[0] + pause, [100.0, clock[0]])
