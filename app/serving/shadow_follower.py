"""Follows the open shadows of the ledger: loads their versions beside the champion, and ends those with a fault."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import psutil

from app.serving.follower import ModelFollower
from app.serving.loaded_model import LoadedModel
from app.serving.memory import collect_garbage, release_memory
from app.serving.shadow_slot import Canary, Plan, RunningShadow, ShadowSlot
from app.serving.version_loader import VersionLoader
from dosel.errors import DoselError, ModelNotFound, RegistryError, UntrustedModel, WarehouseError
from dosel.settings import Settings

if TYPE_CHECKING:
    # Importing these takes seconds, in which the app can already answer /healthz.
    from dosel.registry.shadows import ShadowCounts, ShadowRecord

ACTOR = "serving"

PATIENCE_SECONDS = 600.0
"""A version that cannot be fetched for so long leaves shadow: MLflow or the artifact store may be down meanwhile."""

MAX_PAUSE_SECONDS = 60.0
"""Longest pause before a version that could not be fetched is tried again."""

READ_SECONDS = 10.0
"""The open shadows are read and verified so often even if no entry came: somebody may have edited one."""

MEASUREMENTS = 2
"""How many times a version that seems too large is measured: other work may have taken the memory."""

log = logging.getLogger("uvicorn.error")


class ShadowFollower:
    """Follows from a thread of its own, so that loading a version never delays following Production.

    Args:
        slots: of the use cases that declare a shadow.
        on_end: called once a version is no longer in shadow.
    """

    def __init__(
        self, settings: Settings, follower: ModelFollower, slots: Sequence[ShadowSlot], on_end: Callable[[], None]
    ) -> None:
        self._on_end = on_end
        self._settings = settings
        self._follower = follower
        self._slots = slots
        self._loader = VersionLoader(settings)
        self._failing: dict[tuple[str, int], _Failing] = {}
        self._failed = False
        self._reads: dict[str, _Read] = {}
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="shadows", daemon=True)

    def start(self) -> None:
        if self._slots:
            self._thread.start()

    def stop(self) -> None:
        """End the thread, without waiting for a poll that waits for the data store."""
        self._stopped.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1)

    def poll_soon(self) -> None:
        """Read the ledger now, and not after the usual pause."""
        self._woken.set()

    def _watch(self) -> None:
        while not self._stopped.is_set():
            self._woken.clear()
            counts = self._counts()
            for slot in self._slots:
                try:
                    self._poll(slot, counts.get(slot.use_case.model_name))
                    self._failed = False
                except Exception as error:  # noqa: BLE001  this thread must live on
                    self._note(slot, error)
            self._woken.wait(self._settings.poll_seconds)

    def _counts(self) -> "dict[str, ShadowCounts]":
        """What the ledger counts of each model's shadows; empty if it cannot be read, which each poll then notes."""
        models = [slot.use_case.model_name for slot in self._slots if self._follower.loaded(slot.use_case) is not None]
        try:
            return self._follower.registry().ledger.shadow_counts(models) if models else {}
        except Exception:  # noqa: BLE001  the data store can fail in any way; this thread must live on
            return {}

    def _note(self, slot: ShadowSlot, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            reason = str(error) if isinstance(error, DoselError) else f"{type(error).__name__}: {error}"
            log.warning("%s: the shadows cannot be followed: %s", slot.use_case.name, reason)

    def _poll(self, slot: ShadowSlot, counts: "ShadowCounts | None") -> None:
        """
        Args:
            counts: what the ledger counts of this model's shadows, if it was just read.
        """
        if self._follower.loaded(slot.use_case) is None:
            return
        opened = self._opened(slot, counts)
        self._keep(slot, opened)
        for running in slot.running.values():
            if running.fault:
                slot.ends.setdefault(running.shadow.number, running.fault)
        for shadow in opened:
            if shadow.number not in slot.running and shadow.number not in slot.ends:
                self._load(slot, shadow)
            self._plan(slot)
        for shadow in opened:
            if (reason := slot.ends.get(shadow.number)) is not None:
                self._end(slot, shadow, reason)

    def _opened(self, slot: ShadowSlot, counts: "ShadowCounts | None") -> "tuple[ShadowRecord, ...]":
        """The open shadows. Unless an entry came, they are those of the last poll: verifying them takes milliseconds,
        in which requests wait.
        """
        model, last = slot.use_case.model_name, self._reads.pop(slot.use_case.model_name, None)
        if last is not None and counts == last.counts and time.monotonic() < last.until:
            opened = slot.open
        else:
            last = _Read(counts, time.monotonic() + READ_SECONDS)
            opened = tuple(self._follower.registry().ledger.open_shadows(model))
        if counts is not None:
            self._reads[model] = last
        return opened

    def _keep(self, slot: ShadowSlot, opened: "tuple[ShadowRecord, ...]") -> None:
        """Drop what is no longer open."""
        numbers = {shadow.number for shadow in opened}
        ended = [running for number, running in slot.running.items() if number not in numbers]
        slot.open = opened
        slot.running = {number: running for number, running in slot.running.items() if number in numbers}
        slot.ends = {number: reason for number, reason in slot.ends.items() if number in numbers}
        slot.waiting_for = {number: reason for number, reason in slot.waiting_for.items() if number in numbers}
        if ended:
            self._plan(slot)
            for running in ended:
                log.info("%s: version %d is no longer in shadow", slot.use_case.name, running.shadow.version)
            self._on_end()
            collect_garbage()

    def _plan(self, slot: ShadowSlot) -> None:
        running = tuple(one for one in slot.running.values() if not one.fault)
        if not running:
            slot.plan = None
        elif slot.plan is None or slot.plan.running != running:
            declared = slot.declared
            canaries = (Canary.of(slot.use_case, declared, one) for one in running)
            slot.plan = Plan(running[0].shadow.champion, declared.sample, running, next(filter(None, canaries), None))

    def _load(self, slot: ShadowSlot, shadow: "ShadowRecord") -> None:
        champion = self._follower.loaded(slot.use_case)
        if champion is None or champion.version.version != shadow.champion:
            # The champion must be loaded first.
            slot.waiting_for[shadow.number] = f"its champion, version {shadow.champion}, is not loaded yet"
            return
        key = slot.use_case.model_name, shadow.number
        failing = self._failing.setdefault(key, _Failing(self._settings.poll_seconds))
        if time.monotonic() < failing.retry_at:
            return
        slot.waiting_for[shadow.number] = "loading"
        try:
            loaded, megabytes = self._measured(slot, shadow)
        except (UntrustedModel, ModelNotFound) as error:
            slot.ends[shadow.number] = f"it cannot be loaded: {error}"
        except (RegistryError, WarehouseError, OSError) as error:
            slot.waiting_for[shadow.number] = str(error)
            if failing.again():
                slot.ends[shadow.number] = f"it could not be loaded for {PATIENCE_SECONDS:,.0f} s: {error}"
        except Exception as error:  # noqa: BLE001  reading a model can fail in any way
            slot.ends[shadow.number] = f"it cannot be loaded: {type(error).__name__}: {error}"
        else:
            limit = self._settings.shadow_memory_mb
            if loaded is None:
                slot.ends[shadow.number] = (
                    f"it takes {megabytes:,.0f} MB of memory, and DOSEL_SHADOW_MEMORY_MB allows {limit:,.0f} MB"
                )
                return
            self._failing.pop(key, None)
            slot.waiting_for.pop(shadow.number, None)
            slot.running[shadow.number] = RunningShadow(shadow, loaded, slot.dropped)
            log.info(
                "%s: version %d answers in shadow of version %d, with %.0f MB",
                slot.use_case.name,
                shadow.version,
                shadow.champion,
                megabytes,
            )

    def _measured(self, slot: ShadowSlot, shadow: "ShadowRecord") -> tuple[LoadedModel | None, float]:
        """The loaded version and its megabytes; None for the version if it is too large.

        Raises:
            ModelNotFound: MLflow has another version of this number.
        """
        process, megabytes = psutil.Process(), 0.0
        for _ in range(MEASUREMENTS):
            release_memory()
            before = process.memory_info().rss
            name = slot.use_case.model_name
            loaded = self._loader.load(self._follower.registry(), slot.use_case, name, shadow.version)
            if loaded.version.run_id != shadow.run_id:
                raise ModelNotFound(f"MLflow's version {shadow.version} is of another run than the shadow's")
            collect_garbage()
            release_memory()
            megabytes = (process.memory_info().rss - before) / 1e6
            if megabytes <= self._settings.shadow_memory_mb:
                return loaded, max(0.0, megabytes)
            del loaded
            collect_garbage()
        return None, megabytes

    def _end(self, slot: ShadowSlot, shadow: "ShadowRecord", reason: str) -> None:
        """Record in the ledger that a shadow stopped; after a failure the next poll tries again."""
        from dosel.registry.shadows import ShadowEnd

        running = slot.running.get(shadow.number)
        dropped = slot.dropped_since_loaded(shadow.number)
        figures = {"answers_of_this_process": running.answered if running else 0, "dropped": dropped}
        if self._follower.registry().end_shadow(shadow, ShadowEnd("stopped", ACTOR, reason, figures)):
            log.warning("%s: version %d leaves shadow: %s", slot.use_case.name, shadow.version, reason)
        self._woken.set()


class _Read(NamedTuple):
    """A read of the open shadows: what the ledger counted before it, and until when it is used."""

    counts: "ShadowCounts | None"
    until: float


class _Failing:
    """A version that cannot be fetched for now."""

    def __init__(self, pause: float) -> None:
        self._since = time.monotonic()
        self._pause = pause
        self.retry_at = 0.0

    def again(self) -> bool:
        """Set the time of the next attempt; return whether there have been enough."""
        now = time.monotonic()
        self.retry_at, self._pause = now + self._pause, min(2 * self._pause, MAX_PAUSE_SECONDS)
        return now - self._since > PATIENCE_SECONDS
