"""Model versions and Production. The promotion ledger is the truth; MLflow's aliases and stage follow it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from dosel.db.engine import connect
from dosel.errors import ModelNotFound, PromotionConflict, PromotionRefused, UntrustedModel
from dosel.model import bundle, tags
from dosel.model.description import describe
from dosel.registry.approvals import Approvals, Request, Subject
from dosel.registry.attested import read_version, with_facts
from dosel.registry.card import Card, card_of
from dosel.registry.card_formats import as_markdown
from dosel.registry.file_verification import admit, check_promotable, sign, trusted_files, vouch
from dosel.registry.heads import publish_or_log
from dosel.registry.ledger import Evidence, Kind, Promotion, PromotionLedger, is_same
from dosel.registry.looks import Holdout, holdout
from dosel.registry.manifests import Manifest
from dosel.registry.projection import PRODUCTION, Projection, entered, evidence_of, newest_of, sync_aliases
from dosel.registry.rollbacks import rollback_candidates
from dosel.registry.shadows import Role, ShadowEnd, ShadowRecord
from dosel.registry.store import ModelVersion, Store
from dosel.registry.verdicts import Verdict
from dosel.settings import Settings
from dosel.signing import Keys
from dosel.usecases import UseCase

log = logging.getLogger(__name__)


ON_ITS_WAY = timedelta(seconds=10)
"""MLflow may lack an entry younger than this; the process that finds an older one missing in MLflow writes it there."""


class Registry:
    """MLflow's registry at `tracking_uri`, together with the promotion ledger.

    Every call may raise RegistryError (MLflow cannot be reached, or refused) and WarehouseError (the data store
    cannot be reached, or refused).

    Args:
        on_promotion: called after each promotion.
        key_names: the names of the people who may agree to promotions, by key.
    """

    def __init__(
        self,
        tracking_uri: str,
        ledger: PromotionLedger,
        on_promotion: Callable[[], None] = lambda: None,
        key_names: Mapping[str, str] | None = None,
    ) -> None:
        self._ledger = ledger
        self.approvals = Approvals(ledger.engine, key_names or {}, ledger.keys)
        self._store = Store(tracking_uri)
        self._on_promotion = on_promotion
        self.on_entry: Callable[[], None] = lambda: None
        """Called once an entry is in the ledger, before MLflow's aliases follow."""

    @classmethod
    def opened(cls, settings: Settings, engine: Engine | None = None) -> "Registry":
        """The registry of these settings, which signs the ledgers' head after each promotion.

        Args:
            engine: the data store, if the caller has connected to it.
        """
        engine = engine or connect(settings.warehouse_url)
        ledger = PromotionLedger(engine, Keys(settings))
        return cls(settings.tracking_uri, ledger, lambda: publish_or_log(engine, settings), settings.promote_key_names)

    @property
    def ledger(self) -> PromotionLedger:
        return self._ledger

    @property
    def store(self) -> Store:
        return self._store

    def register(self, use_case: UseCase, run_id: str) -> ModelVersion:
        """Register the model that `run_id` logged; if it is registered already, return its version.

        The newest version of a family gets the family's name as an alias.

        Raises:
            UntrustedModel: the artifact store does not hold the files that the training process recorded.
        """
        version = self._store.create_version(use_case.model_name, describe(use_case), run_id)
        manifest = admit(self._store, self._ledger, version)
        if (family := manifest.family) is not None:
            self._store.tag(version, {tags.FAMILY: family})
            # With the lock, since the API sets missing aliases, too, and MLflow fails when two set one at once.
            with self._ledger.lock(version.name) as lock:
                if (newest := newest_of(self._store, self._ledger, version.name, family)) is not None:
                    lock.check()
                    self._store.set_alias(version.name, family, newest)
        return with_facts(version, manifest, self._ledger.verdicts(version.name))

    def record_manifest(self, version: ModelVersion) -> Manifest:
        """Record and sign the manifest of a version's files as they are now; one that is recorded already stays."""
        return vouch(self._store, self._ledger, version)

    def sign(self, version: ModelVersion) -> bool:
        """Sign a version that no trusted key has signed (see `file_verification.sign`)."""
        return sign(self._store, self._ledger, version)

    def manifest(self, version: ModelVersion) -> Manifest | None:
        return self._ledger.manifest(version.name, version.version, version.run_id)

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, newest first; none if it is not registered."""
        known = {(manifest.version, manifest.run_id): manifest for manifest in self._ledger.manifests(name)}
        verdicts = self._ledger.verdicts(name)
        return [with_facts(v, known.get((v.version, v.run_id)), verdicts) for v in self._store.versions(name)]

    def version(self, name: str, version: int) -> ModelVersion:
        """One version.

        Raises:
            ModelNotFound: there is none of that number.
        """
        return read_version(self._store, self._ledger, name, version)

    def production_number(self, name: str) -> int | None:
        """The number of the version in Production, cheaply; None while there is none.

        If alias and ledger differ, they are reconciled first, unless the process that wrote the entry is about to.
        """
        number, last = self._store.alias(name, PRODUCTION), self._ledger.last(name)
        if last is not None and (last.to_version == number or self._is_on_its_way(last, number)):
            return last.to_version
        if last is None and number is None:
            return None
        version = self.reconcile(name).version
        return version.version if version else None

    def _is_on_its_way(self, last: Promotion, number: int | None) -> bool:
        """Whether the alias is where it was before the last entry, which was written a moment ago."""
        fresh = abs(datetime.now(UTC) - last.at) < ON_ITS_WAY
        return fresh and number == last.from_version and self._ledger.projected(last.model) == last.sequence - 1

    def production(self, name: str) -> ModelVersion | None:
        """The version in Production, or None."""
        number = self.production_number(name)
        return None if number is None else self.version(name, number)

    def newest_of(self, name: str, family: str) -> int | None:
        """The number of a family's newest version, by the ledger; None while it has none.

        Versions that an older dosel registered have no family in the ledger: of these, MLflow's alias decides.
        """
        if family not in self._ledger.families(name):
            number = self._store.alias(name, family)
            known = [n for other in self._ledger.families(name) for n, _ in self._ledger.of_family(name, other)]
            return None if number in known else number
        return newest_of(self._store, self._ledger, name, family)

    def load(self, version: ModelVersion) -> Any:
        """The fitted estimator of a version, read without running code from its files.

        Raises:
            UntrustedModel: its files are not those that were registered, or not in a format that can be read so.
        """
        with self.files(version) as folder:
            return bundle.read_estimator(folder)

    def files(self, version: ModelVersion) -> AbstractContextManager[Path]:
        """A verified copy of a version's files, removed after the block.

        Raises:
            UntrustedModel: its files are not those that were registered.
        """
        return trusted_files(self._store, self._ledger, version)

    def check(self, version: ModelVersion) -> None:
        """Check that the API could load a version (see `check_promotable`)."""
        check_promotable(self._store, self._ledger, version)

    def promote(
        self,
        version: ModelVersion,
        actor: str,
        reason: str,
        evidence: Evidence | None = None,
        after: int | None = None,
        ends: tuple[ShadowRecord, ShadowEnd] | None = None,
        holder: str | None = None,
    ) -> Promotion:
        """Put a version into Production: first the ledger, then MLflow. A second call changes nothing.

        Args:
            holder: the key's holder who asks for it, which is an approval, too; None for a process.
            evidence: the figures of the decision; by default the version's own, as for a decision by hand.
            after: sequence of the ledger's entry on which the decision rests; by default the last one.
            ends: the shadow that ends with it, and how; its evidence becomes the entry's `live`.

        Raises:
            UntrustedModel: its files are not those that were registered, or its columns had another meaning.
            PromotionConflict: Production changed after the entry `after`.
            ApprovalsMissing: the use case declares that more people must agree.
        """
        self.check(version)
        name = version.name
        with self._ledger.lock(name) as lock:
            # First finish an interrupted promotion, and record a move that was made in MLflow.
            before = sync_aliases(lock, self._store, self._ledger, name)
            evidence = evidence or evidence_of(self._ledger, version, before.version, "manual")
            sequence = before.entry.sequence if before.entry else 0
            is_there = before.entry is not None and is_same(before.entry, version.version, version.run_id)
            if not is_there and after in (None, sequence):
                subject, after = self._subject(version, sequence, evidence.kind), sequence
                request = self.approvals.admit(subject, actor, reason, holder)
                if request is not None:
                    evidence = self._approved(version, evidence, request)
                    actor, reason = self._agreed(request), request.reason
            entry = self._ledger.append(name, version.version, actor, reason, _with_live(evidence, ends), after, ends)
            self.on_entry()
            sync_aliases(lock, self._store, self._ledger, name)
        self._on_promotion()
        return entry

    def _subject(self, version: ModelVersion, sequence: int, kind: Kind) -> Subject:
        manifest, verdict = self.manifest(version), self.verdict(version)
        return Subject(
            version.name,
            version.version,
            version.run_id,
            manifest.digest if manifest else "",
            verdict.digest if verdict else "",
            sequence,
            kind,
        )

    def _approved(self, version: ModelVersion, evidence: Evidence, request: Request) -> Evidence:
        """The evidence of a promotion that people agreed to; if the gate had asked them, it has the gate's report."""
        verdict = self.verdict(version)
        if request.subject.kind == "gate" and evidence.kind == "manual" and verdict is not None:
            evidence = self.gate_evidence(version, verdict.report or {}, "gate")
        return replace(evidence, request=request.number)

    def _agreed(self, request: Request) -> str:
        """Who agreed to a promotion, for the ledger."""
        agreed = ", ".join(request.holders(self.approvals.names))
        return f"API keys {agreed}" if request.subject.kind == "manual" else f"{request.actor}, approved by {agreed}"

    def gate_evidence(self, version: ModelVersion, report: Mapping[str, Any], kind: Kind) -> Evidence:
        """The evidence of a promotion that follows from the gate's report, as in `gate.json`."""
        manifest, metrics = self.manifest(version), report.get("metrics", {})
        return Evidence(
            kind=kind,
            to_run=version.run_id,
            data_digest=version.tags.get(tags.DATA_DIGEST),
            manifest_digest=manifest.digest if manifest else None,
            metrics_before=metrics.get("production", {}),
            metrics_after=metrics.get("challenger", {}),
            gate=report or None,
        )

    def roll_back(
        self,
        name: str,
        actor: str,
        reason: str,
        to: int | None = None,
        after: int | None = None,
        ends: tuple[ShadowRecord, ShadowEnd] | None = None,
    ) -> Promotion:
        """Put the previous Production version back; called again, the one before it.

        Args:
            to: a version that has been in Production; by default the last one that can be loaded.
            after: sequence of the ledger's entry on which the decision rests; by default the last one.
            ends: the shadow that ends with it, as in `promote`.

        Raises:
            PromotionConflict: Production changed after the entry `after`.
            PromotionRefused: no earlier version can be loaded, or `to` never was in Production or is lost.
            UntrustedModel: the files of `to` are not those that were registered.
        """
        with self._ledger.lock(name) as lock:
            now = sync_aliases(lock, self._store, self._ledger, name)
            history = self._ledger.history(name)
            version = (
                self._rollback_target(history, name, to) if to is not None else self._previous_version(history, name)
            )
            evidence = evidence_of(self._ledger, version, now.version, "rollback")
            entry = self._ledger.append(name, version.version, actor, reason, _with_live(evidence, ends), after, ends)
            self.on_entry()
            sync_aliases(lock, self._store, self._ledger, name)
        self._on_promotion()
        return entry

    def start_shadow(
        self,
        version: ModelVersion,
        role: Role,
        length: timedelta,
        actor: str,
        reason: str,
        after: int,
        gate: Mapping[str, Any] | None = None,
    ) -> ShadowRecord:
        """Let a version answer in shadow, beside the champion; if it does already, return that shadow.

        Args:
            length: until the deadline.
            after: sequence of the ledger's entry that put the champion into Production.
            gate: the gate's report on the version.

        Raises:
            UntrustedModel: its files are not those that were registered, or its columns had another meaning.
            PromotionConflict: Production changed after the entry `after`, or another version has this role.
        """
        self.check(version)
        name = version.name
        with self._ledger.lock(name) as lock:
            champion = sync_aliases(lock, self._store, self._ledger, name).entry
            if champion is None or champion.sequence != after:
                raise PromotionConflict(f"{name}: Production changed during the decision; decide again")
            for running in self._ledger.open_shadows(name):
                if running.role == role and running.version == version.version:
                    return running
                if running.role == role:
                    raise PromotionConflict(f"{name}: version {running.version} is in shadow already")
            now, known = datetime.now(UTC), self._ledger.shadows(name)
            started = ShadowRecord(
                model=name,
                number=known[-1].number + 1 if known else 1,
                role=role,
                version=version.version,
                run_id=version.run_id,
                champion=champion.to_version,
                sequence=after,
                at=now,
                ends_at=now + length,
                actor=actor,
                reason=reason,
                gate=gate,
            )
            self._ledger.start_shadow(started)
            sync_aliases(lock, self._store, self._ledger, name)
            return started

    def end_shadow(self, shadow: ShadowRecord, how: ShadowEnd) -> bool:
        """End a shadow and leave Production as it is; return False if it had ended before."""
        with self._ledger.lock(shadow.model) as lock:
            ended = self._ledger.end_shadow(shadow, how)
            sync_aliases(lock, self._store, self._ledger, shadow.model)
            return ended

    def reconcile(self, name: str) -> Projection:
        """Synchronise MLflow with the ledger (see `sync_aliases`)."""
        with self._ledger.lock(name) as lock:
            return sync_aliases(lock, self._store, self._ledger, name)

    def last_promotion(self, name: str) -> Promotion | None:
        """The ledger's last entry: which version is in Production, since when and why; or None."""
        return self._ledger.last(name)

    def holdout(self, use_case: UseCase) -> Holdout:
        """The holdout that trainings and the gate use now, with the looks at it."""
        return holdout(use_case, self._ledger.looks(use_case.model_name))

    def card(self, use_case: UseCase, version: ModelVersion) -> Card:
        """The model card of a version, from what the ledger has."""
        mine = [
            shadow
            for shadow in self._ledger.shadows(version.name)
            if (shadow.version, shadow.run_id) == (version.version, version.run_id)
        ]
        return card_of(use_case, version, self.manifest(version), self.verdict(version), mine)

    def write_card(self, use_case: UseCase, version: ModelVersion) -> None:
        """Write the model card of a version to its run, for readers of MLflow."""
        self._store.write_card(version, as_markdown(self.card(use_case, version)))

    def open_notes(self, name: str) -> list[str]:
        """Problems with Production that were noted since its last change."""
        last = self._ledger.last(name)
        return [note.text for note in self._ledger.notes(name) if note.sequence == (last.sequence if last else 0)]

    def verdict(self, version: ModelVersion) -> Verdict | None:
        """The gate's last verdict on a version, by the ledger; None if it was not judged."""
        return self._ledger.verdicts(version.name).get((version.version, version.run_id))

    def add_verdict(self, version: ModelVersion, verdict: Verdict, after: int | None = None) -> None:
        """Record the gate's verdict on a version in the ledger.

        Args:
            after: the number of looks at the model's held-out rows on which the verdict rests; by default any.

        Raises:
            PromotionConflict: the gate has looked at the held-out rows since.
        """
        with self._ledger.lock(version.name):
            if after is not None and len(self._ledger.looks(version.name)) != after:
                raise PromotionConflict(f"{version.name}: another version was judged meanwhile; judge again")
            self._ledger.add_verdict(version.name, version.version, version.run_id, verdict)

    def tag_run(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version's run; `ModelVersion.tags` has them from then on."""
        self._store.tag_run(version, tags)

    def note(self, version: ModelVersion, tags: Mapping[str, str], metrics: Mapping[str, float], text: str) -> None:
        """Write tags and metrics to a version's run, and `text` to the version's description."""
        self._store.note(version, tags, metrics, text)

    def _rollback_target(self, history: Sequence[Promotion], name: str, number: int) -> ModelVersion:
        entries = [entry for entry in history if entry.to_version == number]
        if not entries:
            were = ", ".join(str(n) for n in sorted({entry.to_version for entry in history})) or "none"
            raise PromotionRefused(
                f"{name} version {number} was never in Production; choose one of {were}, or promote it instead"
            )
        version = entered(self._store, self._ledger, entries[-1])
        if version is None:
            raise PromotionRefused(f"{name} version {number} was deleted from MLflow; choose another version")
        self.check(version)
        return version

    def _previous_version(self, history: Sequence[Promotion], name: str) -> ModelVersion:
        candidates = rollback_candidates(history)
        for entry in reversed(candidates):
            try:
                version = entered(self._store, self._ledger, entry)
                if version is not None:
                    self.check(version)
                    return version
                log.warning("MLflow has lost %s version %d; trying an earlier version", name, entry.to_version)
            except (ModelNotFound, UntrustedModel) as error:
                log.warning("%s; trying an earlier version", error)
        known = "no earlier version can be loaded" if candidates else "there is no earlier version"
        raise PromotionRefused(f"{name}: {known}; `dosel versions {name}` lists all that can be promoted instead")


def _with_live(evidence: Evidence, ends: tuple[ShadowRecord, ShadowEnd] | None) -> Evidence:
    return evidence if ends is None else replace(evidence, live=ends[1].evidence)
