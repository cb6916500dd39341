"""API processes of one machine share what they see of the registry, and each still follows Production."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.serving import shared_reads
from app.serving.follower import ASK_EVERY, ModelFollower
from app.serving.shared_reads import Confirmation, SharedReads
from dosel.db.engine import connect
from dosel.registry.ledger import PromotionLedger
from dosel.registry.projection import Projection
from dosel.registry.registry import Registry
from dosel.settings import Settings
from dosel.usecases.covertype import COVERTYPE
from tests.contract.test_api import wait_until

PROCESSES, POLLS = 10, 3 * ASK_EVERY


class Counted(Registry):
    """Counts what the followers ask the ledger and MLflow."""

    reads = asked = 0

    def production_number(self, name: str) -> int | None:
        Counted.asked += 1
        return super().production_number(name)

    def reconcile(self, name: str) -> Projection:
        Counted.asked += 1
        return super().reconcile(name)


class Polling(ModelFollower):
    """Counts its polls, and their reads of the ledger."""

    polls = 0

    def _sequences(self, seconds: float) -> dict[str, int]:
        self.polls += 1
        return super()._sequences(seconds)


def counted(settings: Settings) -> Registry:
    registry = Counted(settings.tracking_uri, PromotionLedger(connect(settings.warehouse_url)))
    read = registry.ledger.sequences

    def sequences(models: Collection[str]) -> dict[str, int]:
        Counted.reads += 1
        return read(models)

    registry.ledger.sequences = sequences  # type: ignore[method-assign]
    return registry


@pytest.mark.soak
def test_ten_processes_ask_the_registry_as_often_as_one(install: Callable[..., Any]) -> None:
    here = install(in_production=True)
    followers = [Polling(here.settings, [COVERTYPE], counted) for _ in range(PROCESSES)]
    with started(followers):
        wait_until(lambda: not any(follower.stale(COVERTYPE) for follower in followers))
        before, reads, asked, began = [f.polls for f in followers], Counted.reads, Counted.asked, time.monotonic()
        wait_until(lambda: all(f.polls >= polls + POLLS for f, polls in zip(followers, before, strict=True)))
        reads, asked, took = Counted.reads - reads, Counted.asked - asked, time.monotonic() - began
        # One process alone reads the ledger at each of its polls, and asks MLflow, and reconciles, at every tenth.
        # Twice that is far below ten times: a process that is slow is not waited for.
        polls = took / here.settings.poll_seconds
        assert 0 < reads <= 2 * (1 + polls)
        assert 0 < asked <= 2 * 2 * (2 + polls / ASK_EVERY)
        here.promote(here.good[1])
        wait_until(lambda: {follower.in_production(COVERTYPE).version.version for follower in followers} == {2})


@contextmanager
def started(followers: Sequence[ModelFollower]) -> Iterator[None]:
    with ExitStack() as stack:
        for follower in followers:
            follower.start()
            stack.callback(follower.stop)
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, tracking_uri="http://mlflow", warehouse_url="sqlite://")


def test_the_registry_is_read_again_once_a_read_is_too_old(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    one, other = SharedReads(settings), SharedReads(settings)
    assert one.sequences(lambda: {"m": 1}, 0.5) == {"m": 1}
    assert other.sequences(lambda: {"m": 2}, 0.5) == {"m": 1}
    now += 1.0
    assert one.confirmation("m", 5) is None
    one.confirm("m", Confirmation(1, now))
    assert other.confirmation("m", 5) == Confirmation(1, now)
    assert other.sequences(lambda: {"m": 2}, 0.5) == {"m": 2}
    # A process that has written an entry does not rely on what others saw before.
    assert one.sequences(lambda: {"m": 3}, 0) == {"m": 3}


def test_one_process_reads_and_the_others_do_not_wait_for_it_forever(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    one, other = SharedReads(settings), SharedReads(settings)
    one.confirm("m", Confirmation(1, began))
    now += 5.5
    assert one.confirmation("m", 5) == Confirmation(-1, began)
    assert other.confirmation("m", 5) == Confirmation(1, began)
    now += shared_reads.CLAIM_SECONDS
    assert [shared.confirmation("m", 5).newest for shared in (other, one)] == [-1, 1]  # type: ignore[union-attr]
    # Its process could not ask: each is to see for itself.
    other.forget("m")
    assert one.confirmation("m", 5) is None


@pytest.mark.parametrize("kept", [b"", b"x\n{}", b"0" * 64 + b'\n{"at":1e9,"claimed":0,"content":{"m":9}}'])
def test_a_read_without_the_installations_signature_is_not_trusted(kept: bytes, settings: Settings) -> None:
    shared = SharedReads(settings)
    shared.sequences(lambda: {"m": 1}, 60)
    [file] = settings.home.glob("reads/*/sequences")
    file.write_bytes(kept)
    assert shared.sequences(lambda: {"m": 2}, 60) == {"m": 2}
