"""Follows the version in Production: a loaded model for each use case, replaced when Production changes."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from app.serving.loaded_model import LoadedModel, NotReady
from app.serving.memory import collect_garbage, release_memory
from app.serving.shared_reads import Confirmation, SharedReads
from app.serving.slot import Slot
from app.serving.stale_events import StaleEvents
from app.serving.version_loader import VersionLoader
from dosel.errors import DoselError, ModelNotFound, UntrustedModel
from dosel.rows.shortened import cut
from dosel.settings import Settings
from dosel.usecases import UseCase, named

if TYPE_CHECKING:
    # Importing it takes seconds, in which the app can already answer /healthz.
    from dosel.registry.registry import Registry

RECONCILE_SECONDS = 10.0
"""Pause between two repairs of what polls do not check: MLflow's stage and the aliases of families."""

ASK_EVERY = 10
"""MLflow is asked at every tenth poll only: most changes are in the ledger, which costs much less to ask."""

MAX_RELOAD_SECONDS = 60.0
"""Longest pause before a version that could not be loaded is tried again."""

log = logging.getLogger("uvicorn.error")


class ModelFollower:
    """Follows Production from a thread of its own; a model answers until the next one is loaded and warm.

    Args:
        open_registry: connects to the registry; called again until it succeeds.
    """

    def __init__(
        self,
        settings: Settings,
        use_cases: Sequence[UseCase],
        open_registry: "Callable[[Settings], Registry] | None" = None,
    ) -> None:
        self._settings = settings
        self._loader = VersionLoader(settings)
        self._reads = SharedReads(settings)
        self._stale = StaleEvents(settings.warehouse_url)
        self._open_registry = open_registry or _open
        self._registry: Registry | None = None
        self._slots = {use_case.name: Slot(use_case) for use_case in use_cases}
        self._families: dict[tuple[str, str], Slot] = {}
        """Slots of the families that a request has named."""
        self.ready: Callable[[UseCase, int], LoadedModel | None] = lambda use_case, number: None
        """Gives a version that is loaded already, such as one in shadow."""
        self._polling = threading.Lock()
        self._opening = threading.Lock()
        self._stopped = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="production", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, without waiting for a poll that waits for MLflow."""
        self._stopped.set()
        self._woken.set()
        self._thread.join(timeout=1)

    @property
    def use_cases(self) -> list[UseCase]:
        return [slot.use_case for slot in self._slots.values()]

    def named(self, name: str) -> UseCase:
        """The use case of that name.

        Raises:
            UnknownUseCase: this API serves none of that name.
        """
        return self._slots[name].use_case if name in self._slots else named(cut(name), self.use_cases)

    def check_model(self, use_case: UseCase, model: str) -> None:
        """Check that `model` is the registered model of the use case.

        Raises:
            ModelNotFound: it is not; the message lists what is.
        """
        if model == use_case.model_name:
            return
        for other in self.use_cases:
            if model == other.model_name:
                raise ModelNotFound(f"{model} is the model of {other.name}; send the row to /predict/{other.name}")
        families = ", ".join(family.name for family in use_case.families)
        raise ModelNotFound(
            f"no registered model {model!r}; {use_case.name} has {use_case.model_name} and the families {families}"
        )

    def in_production(self, use_case: UseCase) -> LoadedModel:
        """The loaded model.

        Raises:
            NotReady: no model is loaded yet.
        """
        slot = self._slots[use_case.name]
        if slot.loaded is None:
            raise NotReady(f"no model answers for {use_case.name} yet; waiting for {slot.waiting_for}")
        return slot.loaded

    def loaded(self, use_case: UseCase) -> LoadedModel | None:
        """The loaded model, or None."""
        return self._slots[use_case.name].loaded

    def of_family(self, use_case: UseCase, family: str) -> LoadedModel | None:
        """A family's newest version, if a request has had it loaded; it is followed since then."""
        slot = self._families.get((use_case.name, family))
        return slot.loaded if slot else None

    def load_family(self, use_case: UseCase, family: str) -> LoadedModel:
        """Load a family's newest version; waits for MLflow.

        Raises:
            NotReady: there is none yet, or it cannot be loaded.
        """
        with self._polling:
            slot = self._families.setdefault((use_case.name, family), Slot(use_case, family))
            if slot.loaded is None:
                self._load_last_known(slot)
                self._poll(slot)
        if slot.loaded is None:
            raise NotReady(
                f"no model of the family {family} answers for {use_case.name} yet; waiting for {slot.waiting_for}"
            )
        return slot.loaded

    def waiting_for(self, use_case: UseCase) -> str:
        """What keeps the use case from following Production; "" while it does."""
        return self._slots[use_case.name].waiting_for

    def stale(self, use_case: UseCase, family: str = "") -> bool:
        """Whether the last poll could not confirm the loaded model."""
        slot = self._families[use_case.name, family] if family else self._slots[use_case.name]
        return slot.stale

    def swaps(self, use_case: UseCase) -> int:
        """The number of versions loaded so far."""
        return self._slots[use_case.name].swaps

    def registry(self) -> "Registry":
        """The registry, connected on first use.

        Raises:
            RegistryError: MLflow cannot be reached.
            WarehouseError: the data store, which keeps the promotion ledger, cannot be reached.
        """
        with self._opening:
            if self._registry is None:
                self._registry = self._open_registry(self._settings)
                # This process serves its own promotion before MLflow's aliases are updated.
                self._registry.on_entry = self._woken.set
            return self._registry

    def poll_now(self, use_cases: Sequence[UseCase] | None = None) -> None:
        """Ask the registry now, for some use cases or all, and load the versions in Production.

        Raises:
            NotReady: the registry cannot be asked, a version cannot be loaded, or no model answers at all.
        """
        slots = [self._slots[u.name] for u in (use_cases or self.use_cases)]
        with self._polling:
            for slot in slots:
                slot.retry_at, slot.newest = 0.0, -1
                self._poll(slot)
        for slot in slots:
            if slot.failed:
                raise NotReady(f"{slot.use_case.name}: waiting for {slot.waiting_for}{_meanwhile(slot)}")
        if not any(slot.loaded for slot in slots):
            self.in_production(slots[0].use_case)

    def _watch(self) -> None:
        for slot in self._slots.values():
            self._load_last_known(slot)
        while not self._stopped.is_set():
            woken = self._woken.is_set()
            self._woken.clear()
            with self._polling:
                # What another process has read may be older than what this process has just written.
                sequences = self._sequences(0.0 if woken else self._settings.poll_seconds)
                for slot in [*self._slots.values(), *self._families.values()]:
                    self._poll(slot, sequences.get(slot.use_case.model_name))
            self._woken.wait(self._settings.poll_seconds)

    def _sequences(self, seconds: float) -> dict[str, int]:
        """The sequence of each model's last entry, at most so many seconds old.

        It is empty if the ledger cannot be read, which each poll then notes.
        """
        models = [use_case.model_name for use_case in self.use_cases]
        try:
            found = self._reads.sequences(lambda: self.registry().ledger.sequences(models), seconds)
            return found if found.keys() >= set(models) else self.registry().ledger.sequences(models)
        except Exception:  # noqa: BLE001  the registry can fail in any way; this thread must live on
            return {}

    def _poll(self, slot: Slot, newest: int | None = None) -> None:
        """Load the version in Production if it changed; after any failure the loaded model keeps answering.

        Args:
            newest: the sequence of the ledger's last entry, signed or not, if it was just read.
        """
        name = slot.use_case.model_name
        number: int | None = None
        try:
            registry = self.registry()
            self._check(slot)
            if not slot.family and self._unchanged(slot, registry, newest):
                return
            if not slot.family and time.monotonic() >= slot.reconcile_at:
                slot.reconcile_at = time.monotonic() + RECONCILE_SECONDS
                registry.reconcile(name)
                # It has read all versions: up to 40 MB, which the process would keep.
                release_memory()
            number = registry.newest_of(name, slot.family) if slot.family else registry.production_number(name)
            if number is None:
                wanted = f"of the family {slot.family}" if slot.family else "in Production"
                dags = f"the DAGs {slot.use_case.name}_ingest and {slot.use_case.name}_train make one"
                self._note(slot, "empty", f"a version of {name} {wanted}: {dags}", failed=False)
            elif slot.loaded is not None and slot.loaded.version.version == number and self._confirm(slot):
                slot.followed = max(slot.followed or 0, slot.sequence)
                self._agrees(slot)
            elif number != slot.failing or time.monotonic() >= slot.retry_at:
                self._swap(slot, number)
                slot.failing, slot.pause = None, 0.0
                self._agrees(slot)
        except Exception as error:  # noqa: BLE001  reading a model can fail in any way; this thread must live on
            self._reads.forget(name)
            if number is not None:
                slot.failing = number
                slot.pause = min(max(2 * slot.pause, self._settings.poll_seconds), MAX_RELOAD_SECONDS)
                slot.retry_at = time.monotonic() + slot.pause
            what = f"{name} version {number}, which could not be loaded" if number is not None else "the registry"
            reason = str(error) if isinstance(error, DoselError) else f"{type(error).__name__}: {error}"
            self._note(slot, f"{number} {type(error).__name__}", f"{what}: {reason}", failed=True)

    def _unchanged(self, slot: Slot, registry: "Registry", newest: int | None) -> bool:
        """Whether MLflow was asked a moment ago, and the ledger has no entry since; if not, the caller asks now."""
        # Read before MLflow is asked: an entry that comes in between is seen by the next poll.
        name = slot.use_case.model_name
        newest = registry.ledger.sequences([name])[name] if newest is None else newest
        if not slot.stale and newest == slot.newest and (time.monotonic() < slot.ask_at or self._confirmed(slot)):
            return True
        entry = registry.last_promotion(name)
        sequence = entry.sequence if entry else -1
        if slot.followed is None:
            slot.followed = self._loader.last_entry(slot.use_case, slot.cache_name)
        # If there are only unsigned entries, of an older dosel, reconciling says what to do.
        if max(sequence, 0) < slot.followed and (entry is not None or not registry.ledger.unsigned(name)):
            raise UntrustedModel(
                f"the ledger of {name} ends at entry {max(sequence, 0)}, and entry {slot.followed} has been followed "
                "or signed: entries or their signatures were removed, or the data store was restored. If you restored "
                f"it, delete {self._loader.entry_files()} and start the API again"
            )
        if sequence != slot.sequence:
            # The process that wrote the entry holds the model's lock: answering with the version comes first.
            slot.reconcile_at = max(slot.reconcile_at, time.monotonic() + self._settings.poll_seconds)
        slot.newest, slot.sequence = newest, sequence
        slot.ask_at = time.monotonic() + ASK_EVERY * self._settings.poll_seconds
        return False

    def _confirmed(self, slot: Slot) -> bool:
        """Whether another process of this machine has asked MLflow a moment ago, and the ledger has no entry since."""
        seen = self._reads.confirmation(slot.use_case.model_name, ASK_EVERY * self._settings.poll_seconds)
        if seen is None:
            return False
        slot.reconcile_at = max(slot.reconcile_at, seen.reconciled + RECONCILE_SECONDS)
        return seen.newest == slot.newest

    def _agrees(self, slot: Slot) -> None:
        """Note that the loaded version is the one in Production, by MLflow and the ledger, also for other processes."""
        self._note(slot, "", "", failed=False)
        if not slot.family:
            confirmation = Confirmation(slot.newest, slot.reconcile_at - RECONCILE_SECONDS)
            self._reads.confirm(slot.use_case.model_name, confirmation)

    def _note(self, slot: Slot, outcome: str, waiting_for: str, failed: bool) -> None:
        """Record a poll's outcome, and log it if it differs from the last one: polls come twice a second."""
        slot.waiting_for, slot.failed, slot.stale = waiting_for, failed, failed
        self._stale.watch(slot)
        if outcome == slot.last_outcome:
            return
        slot.last_outcome = outcome
        if outcome:
            level = logging.WARNING if failed else logging.INFO
            log.log(level, "%s: waiting for %s%s", slot.use_case.name, waiting_for, _meanwhile(slot))
        else:
            log.info("%s: follows Production", slot.use_case.name)

    def _swap(self, slot: Slot, number: int) -> None:
        """Put a version in the place of the loaded one, once it is loaded and warm."""
        new = None if slot.family else self.ready(slot.use_case, number)
        if new is None or not self._is_registered(new):
            new = self._loader.load(self.registry(), slot.use_case, slot.cache_name, number)
        # In this order: an answer in between is by the version that was just confirmed.
        slot.checked, slot.confirmed, slot.stale = True, True, False
        slot.loaded = new
        slot.swaps += 1
        collect_garbage()
        slot.followed = max(slot.followed or 0, slot.sequence)
        self._loader.set_last(slot.cache_name, number, slot.followed)
        what = f"{new.version.name} version {number}" + (f", {slot.family}," if slot.family else "")
        log.info("%s: %s answers with %s", slot.use_case.name, what, new.predictor.backend)

    def _is_registered(self, loaded: LoadedModel) -> bool:
        """Whether a loaded version is still the one that the registry and the ledger have."""
        version = self.registry().version(loaded.version.name, loaded.version.version)
        manifest = self.registry().manifest(version)
        return manifest is not None and manifest.digest == loaded.manifest

    def _load_last_known(self, slot: Slot) -> None:
        """Answer with the version that this machine last loaded for the slot, until the registry has been asked."""
        try:
            slot.loaded = self._loader.last_known(slot.use_case, slot.cache_name)
        except Exception:
            log.exception("%s: the cached version cannot be used", slot.use_case.name)
        if slot.loaded is not None:
            collect_garbage()
            version = slot.loaded.version
            log.info("%s: %s version %d answers from the cache", slot.use_case.name, version.name, version.version)

    def _confirm(self, slot: Slot) -> bool:
        """Whether a version loaded from the cache is what MLflow means by that number."""
        assert slot.loaded is not None
        if not slot.confirmed:
            version = slot.loaded.version
            slot.confirmed = self.registry().store.run_of(version.name, version.version) == version.run_id
        return slot.confirmed

    def _check(self, slot: Slot) -> None:
        """Compare a version that was loaded from the cache with the ledger, and drop it if the ledger has another.

        The ledger may answer while MLflow does not, so MLflow is not asked.
        """
        if slot.loaded is None or slot.checked:
            return
        version = slot.loaded.version
        manifest = self.registry().manifest(version)
        if manifest is None and self.registry().last_promotion(version.name) is None:
            # Nothing is signed, as after an upgrade: that is no reason to stop answering.
            return
        slot.checked = manifest is not None and manifest.digest == slot.loaded.manifest
        if not slot.checked:
            log.warning(
                "%s: %s version %d in the cache differs from the ledger's version of this number and is no longer used",
                slot.use_case.name,
                version.name,
                version.version,
            )
            slot.loaded = None


def _meanwhile(slot: Slot) -> str:
    return f" (version {slot.loaded.version.version} keeps answering)" if slot.loaded else ""


def _open(settings: Settings) -> "Registry":
    from dosel.registry.registry import Registry

    return Registry.opened(settings)
