"""Uploads are received no faster than a pace, together."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from app.serving.pace import Pace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which passes only in sleep."""
    now = [100.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("app.serving.pace.time.monotonic", lambda: now[0])
    monkeypatch.setattr("app.serving.pace.asyncio.sleep", sleep)
    return now


def run(work: Callable[[], Coroutine[None, None, None]]) -> None:
    with asyncio.Runner() as runner:
        runner.run(work())


def test_a_body_takes_its_bytes_divided_by_the_rate(clock: list[float]) -> None:
    uploads = Pace(1_000_000)

    async def receive() -> None:
        for _ in range(100):
            await uploads.take(50_000)

    run(receive)
    assert clock[0] - 100 == pytest.approx(5, abs=0.05)


def test_a_small_body_waits_for_nothing_even_after_a_pause(clock: list[float]) -> None:
    uploads = Pace(1_000_000)

    async def receive() -> None:
        await uploads.take(10_000)
        clock[0] += 60
        await uploads.take(10_000)

    run(receive)
    assert clock[0] == 160


def test_a_pause_is_not_saved_for_a_burst(clock: list[float]) -> None:
    uploads = Pace(1_000_000)
    clock[0] += 60

    async def receive() -> None:
        for _ in range(10):
            await uploads.take(100_000)

    run(receive)
    assert clock[0] - 160 == pytest.approx(1, abs=0.05)
