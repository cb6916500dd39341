"""Model versions and what is in Production, kept in step with the promotion ledger, which is the truth."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from dosel.db.engine import connect
from dosel.errors import ModelNotFound, PromotionRefused, UntrustedModel
from dosel.model import bundle, tags
from dosel.registry.ledger import Evidence, Promotion, PromotionLedger
from dosel.registry.manifests import Manifest
from dosel.registry.projection import PRODUCTION, Projection, entered, evidence_of, sync_aliases
from dosel.registry.store import ModelVersion, Store
from dosel.registry.trust import record_manifest, trusted_files
from dosel.settings import Settings
from dosel.usecases import UseCase

log = logging.getLogger(__name__)


class Registry:
    """MLflow's registry at `tracking_uri` under the ledger.

    Every call may raise RegistryError, when MLflow cannot be reached or refuses, and WarehouseError, when
    the data store does.
    """

    def __init__(self, tracking_uri: str, ledger: PromotionLedger) -> None:
        self._ledger = ledger
        self._store = Store(tracking_uri)

    @classmethod
    def opened(cls, settings: Settings) -> "Registry":
        return cls(settings.tracking_uri, PromotionLedger(connect(settings.warehouse_url)))

    @property
    def ledger(self) -> PromotionLedger:
        return self._ledger

    @property
    def store(self) -> Store:
        return self._store

    def register(self, use_case: UseCase, run_id: str) -> ModelVersion:
        """The version of the model that `run_id` logged, with its manifest; registered before, it is found again.

        The form that is to answer for it is made here and kept beside the model. The newest version of a family
        carries the family's name as an alias.
        """
        version = self._store.create_version(use_case.model_name, use_case.summary, run_id)
        record_manifest(self._store, self._ledger, version, lambda files: self._add_backend(use_case, version, files))
        family = version.tags.get(tags.FAMILY)
        if family is not None:
            self._store.tag(version, {tags.FAMILY: family})
            if (self._store.alias(version.name, family) or 0) < version.version:
                self._store.set_alias(version.name, family, version.version)
        return version

    def record_manifest(self, version: ModelVersion) -> Manifest:
        """Record the manifest of a version's files as they are now; one that is recorded already stays."""
        return record_manifest(self._store, self._ledger, version)

    def manifest(self, version: ModelVersion) -> Manifest | None:
        return self._ledger.manifest(version.name, version.version, version.run_id)

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, newest first; none if it is not registered."""
        return self._store.versions(name)

    def version(self, name: str, version: int) -> ModelVersion:
        """One version.

        Raises:
            ModelNotFound: there is none of that number.
        """
        return self._store.version(name, version)

    def production_number(self, name: str) -> int | None:
        """The number of the version in Production, for a cheap look; None while there is none.

        Where alias and ledger differ, they are reconciled first: the alias alone is believed by nobody.
        """
        number, last = self._store.alias(name, PRODUCTION), self._ledger.last(name)
        if last is not None and last.to_version == number:
            return number
        if last is None and number is None:
            return None
        version = self.reconcile(name).version
        return version.version if version else None

    def production(self, name: str) -> ModelVersion | None:
        """What is in Production; None while nothing is."""
        number = self.production_number(name)
        return None if number is None else self.version(name, number)

    def newest_of(self, name: str, family: str) -> int | None:
        """The number of a family's newest version; None while it has none."""
        return self._store.alias(name, family)

    def load(self, version: ModelVersion) -> Any:
        """The fitted estimator of a version, read without running code from its files.

        Raises:
            UntrustedModel: its files are not those that were registered, or not in a format that can be read so.
        """
        with self.files(version) as folder:
            return bundle.read_estimator(folder)

    def files(self, version: ModelVersion) -> AbstractContextManager[Path]:
        """A verified copy of a version's files, gone after the block.

        Raises:
            UntrustedModel: its files are not those that were registered.
        """
        return trusted_files(self._store, self._ledger, version)

    def check(self, version: ModelVersion) -> None:
        """
        Raises:
            UntrustedModel: the version's files are not those that were registered.
        """
        with self.files(version):
            pass

    def promote(
        self,
        version: ModelVersion,
        actor: str,
        reason: str,
        evidence: Evidence | None = None,
        after: int | None = None,
    ) -> Promotion:
        """Puts a version in Production: first the ledger, then its projection. Doing it again changes nothing.

        Args:
            evidence: what it rests on; left out, the version's own figures, as for a decision by hand.
            after: the sequence of the ledger's entry it was decided on; left out, whichever is the last.

        Raises:
            UntrustedModel: its files are not those that were registered.
            PromotionConflict: Production was moved since the entry `after`.
        """
        self.check(version)
        name = version.name
        with self._ledger.lock(name) as lock:
            # What another process left half-done, or somebody did in MLflow, comes first into the record.
            before = sync_aliases(lock, self._store, self._ledger, name)
            evidence = evidence or evidence_of(self._ledger, version, before.version, "manual")
            entry = self._ledger.append(name, version.version, actor, reason, evidence, after)
            sync_aliases(lock, self._store, self._ledger, name)
            return entry

    def roll_back(self, name: str, actor: str, reason: str, to: int | None = None) -> Promotion:
        """Puts back what was in Production before what is there now; once more, what was there before that.

        Args:
            to: a version that was in Production at some time; left out, the last one that can be loaded.

        Raises:
            PromotionRefused: there is none.
            UntrustedModel: the version asked for is not what was registered.
        """
        with self._ledger.lock(name) as lock:
            now = sync_aliases(lock, self._store, self._ledger, name)
            history = self._ledger.history(name)
            version = self._asked_back(history, name, to) if to is not None else self._last_good(history, name)
            evidence = evidence_of(self._ledger, version, now.version, "rollback")
            entry = self._ledger.append(name, version.version, actor, reason, evidence)
            sync_aliases(lock, self._store, self._ledger, name)
            return entry

    def reconcile(self, name: str) -> Projection:
        """Brings MLflow to the ledger, whatever happened before; what somebody moved in MLflow is judged."""
        with self._ledger.lock(name) as lock:
            return sync_aliases(lock, self._store, self._ledger, name)

    def last_promotion(self, name: str) -> Promotion | None:
        """What the ledger says of Production: which version, since when and why; None while nothing is in it."""
        return self._ledger.last(name)

    def trouble(self, name: str) -> list[str]:
        """What went wrong around Production since it was last moved, in words."""
        last = self._ledger.last(name)
        return [note.text for note in self._ledger.notes(name) if note.sequence == (last.sequence if last else 0)]

    def tag_run(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Writes tags to a version's run; they are then among the version's own."""
        self._store.tag_run(version, tags)

    def note(self, version: ModelVersion, tags: Mapping[str, str], metrics: Mapping[str, float], text: str) -> None:
        """Writes what became of a version to its run, and in words to its description."""
        self._store.note(version, tags, metrics, text)

    def _add_backend(self, use_case: UseCase, version: ModelVersion, files: Path) -> None:
        """Choose the backend that answers for a version and store it with the version, unless it is there."""
        from dosel.model.predictor import Predictor

        if bundle.read_backend(files) != bundle.StoredBackend():
            return
        try:
            bundle.write_backend(Predictor(use_case, bundle.read_estimator(files)), files)
        except Exception as error:  # noqa: BLE001  whatever is wrong with a model, the gate finds it and reports it
            log.warning("%s version %d cannot answer: %s", version.name, version.version, error)
            return
        self._store.add_files(version, files / bundle.BACKEND_FOLDER, bundle.BACKEND_FOLDER)

    def _asked_back(self, history: Sequence[Promotion], name: str, number: int) -> ModelVersion:
        entries = [entry for entry in history if entry.to_version == number]
        if not entries:
            were = ", ".join(str(n) for n in sorted({entry.to_version for entry in history})) or "none"
            raise PromotionRefused(f"{name} version {number} was never in Production (these were: {were}); promote it")
        version = entered(self._store, entries[-1])
        if version is None:
            raise PromotionRefused(f"{name} version {number} is gone from MLflow")
        self.check(version)
        return version

    def _last_good(self, history: Sequence[Promotion], name: str) -> ModelVersion:
        for entry in reversed(_ways_back(history)):
            try:
                version = entered(self._store, entry)
                if version is not None:
                    self.check(version)
                    return version
                log.warning("%s version %d is gone from MLflow; looking further back", name, entry.to_version)
            except (ModelNotFound, UntrustedModel) as error:
                log.warning("%s; looking further back", error)
        raise PromotionRefused(f"{name}: no version that was in Production before can be gone back to")


def _ways_back(history: Sequence[Promotion]) -> list[Promotion]:
    """What can be gone back to, the last one last: a rollback also takes back what it went back over."""
    stack: list[Promotion] = []
    for entry in history:
        if entry.evidence.kind == "rollback":
            numbers = [e.to_version for e in stack]
            if entry.to_version in numbers:
                del stack[len(numbers) - 1 - numbers[::-1].index(entry.to_version) :]
        stack.append(entry)
    now = stack[-1].to_version if stack else None
    return [entry for entry in stack if entry.to_version != now]
