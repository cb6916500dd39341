"""The promotion ledger: which version was in Production when, by whom and why. Entries are only added.

Each entry is signed (`dosel.registry.signed_entries`); one without the signature of a trusted key is passed over.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Engine, RowMapping, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from dosel.db import locks
from dosel.db.engine import reading, transaction
from dosel.db.migrations import migrate
from dosel.db.tables import PROJECTIONS, PROMOTIONS
from dosel.db.types import fitting
from dosel.errors import PromotionConflict
from dosel.model import signature
from dosel.model.facts import Facts
from dosel.registry import manifests, notes, orphans, shadows, signed_entries, verdicts
from dosel.registry.announcements import announce_promotion, announce_shadow, announce_shadow_end, announce_waiting
from dosel.registry.looks import PastLook, distinct
from dosel.registry.manifests import TRAINED, Manifest
from dosel.registry.notes import Note
from dosel.registry.shadows import ShadowCounts, ShadowEnd, ShadowRecord
from dosel.registry.verdicts import Verdict
from dosel.signing import Keys

Kind = Literal["gate", "shadow", "manual", "rollback", "followed"]
"""Cause of a change: the gate, a challenger's shadow, a person, a rollback, or an alias that was moved in MLflow and
followed."""

ATTEMPTS = 5

CLOCK_TOLERANCE = timedelta(seconds=5)
"""Largest difference between machines' clocks that does not count as a jump."""


@dataclass(frozen=True)
class Evidence:
    """The facts behind a promotion.

    `gate` is the gate's report, as in `gate.json`; None if the gate did not judge. `live` is what live rows showed of
    champion and challenger; None if no shadow decided. `request` is the number of the request that people approved;
    None if none was needed.
    """

    kind: Kind = "manual"
    to_run: str | None = None
    data_digest: str | None = None
    manifest_digest: str | None = None
    metrics_before: Mapping[str, float] = field(default_factory=dict)
    metrics_after: Mapping[str, float] = field(default_factory=dict)
    gate: Mapping[str, Any] | None = None
    live: Mapping[str, Any] | None = None
    request: int | None = None


@dataclass(frozen=True)
class Promotion:
    """One change of Production; `sequence` counts a model's changes from 1, without gaps."""

    model: str
    sequence: int
    from_version: int | None
    to_version: int
    at: datetime
    actor: str
    reason: str
    evidence: Evidence = Evidence()


class PromotionLedger:
    """Adds and reads entries. Each entry's `from_version` is the `to_version` of the signed entry before.

    Args:
        keys: by default those of the environment.
    """

    def __init__(self, engine: Engine, keys: Keys | None = None) -> None:
        self._engine = engine
        self._migrated = False
        self.keys = keys or Keys()
        """The keys that sign versions and entries, and the trusted keys."""

    def lock(self, model: str) -> AbstractContextManager[locks.NamedLock]:
        """The lock of a model, for changes of Production in the ledger and in MLflow."""
        # Before the lock: migrating takes a lock, too, and on SQLite all locks are on the same file.
        self._migrate()
        return locks.hold(self._engine, f"moving Production of {model}")

    def append(
        self,
        model: str,
        to_version: int,
        actor: str,
        reason: str,
        evidence: Evidence = Evidence(),
        after: int | None = None,
        ends: tuple[ShadowRecord, ShadowEnd] | None = None,
    ) -> Promotion:
        """Record that `to_version` is in Production; if it already is, record nothing.

        Args:
            after: the sequence of the entry that this one must follow, 0 for none; by default the last one.
            ends: the shadow that this entry ends, and how.

        Raises:
            PromotionConflict: another entry was added since `after`, or the shadow has ended.
        """
        for _ in range(ATTEMPTS):
            try:
                return self._append(model, to_version, actor, reason, evidence, after, ends)
            except IntegrityError:
                # Another process took this sequence; the next attempt takes the following one.
                continue
        raise PromotionConflict(f"{model}: other processes changed Production {ATTEMPTS} times in a row; try again")

    def last(self, model: str) -> Promotion | None:
        """The last signed entry, which names the version in Production; None without one."""
        with self._reading() as connection:
            return self._last(connection, model)

    def unsigned(self, model: str) -> list[int]:
        """The sequences of the entries after the last signed one: somebody else than dosel wrote them, or an older
        dosel did, before entries were signed."""
        with self._reading() as connection:
            last = self._last(connection, model)
            mine = (PROMOTIONS.c.model == model) & (PROMOTIONS.c.sequence > (last.sequence if last else 0))
            return list(connection.scalars(select(PROMOTIONS.c.sequence).where(mine).order_by(PROMOTIONS.c.sequence)))

    def sign_older(self, every: bool) -> tuple[list[str], list[str]]:
        """Sign entries that have no signature of a trusted key (see `signed_entries.sign_older`)."""
        with self._transaction() as connection:
            return signed_entries.sign_older(connection, self.keys, every)

    def sequences(self, models: Collection[str]) -> dict[str, int]:
        """The sequence of each model's last entry, in one query; 0 for a model without entries."""
        last = select(PROMOTIONS.c.model, func.max(PROMOTIONS.c.sequence)).group_by(PROMOTIONS.c.model)
        with self._reading() as connection:
            found = {str(row[0]): int(row[1]) for row in connection.execute(last.where(PROMOTIONS.c.model.in_(models)))}
        return dict.fromkeys(models, 0) | found

    def history(self, model: str, until: datetime | None = None) -> list[Promotion]:
        """A model's signed entries up to a time, oldest first; the last one names the version in Production then."""
        with self._reading() as connection:
            entries = self._signed(connection, model)
        if until is None:
            return entries
        now = datetime.now(UTC)
        # An entry from a machine with a fast clock can be dated ahead; it belongs to the past all the same.
        recent = until > now - CLOCK_TOLERANCE
        return [entry for entry in entries if entry.at <= until or (recent and entry.at > now)]

    def start_shadow(self, shadow: ShadowRecord) -> None:
        """Record the start of a shadow. The caller holds the model's lock."""
        with self._transaction() as connection:
            shadows.add(connection, shadow, self.keys.settings)
            announce_shadow(connection, shadow)

    def end_shadow(self, shadow: ShadowRecord, how: ShadowEnd) -> bool:
        """Record a decision that leaves Production as it is; return False if the shadow had ended before."""
        with self._transaction() as connection:
            ended = shadows.end(connection, shadow, how)
            # Another change of Production has an event of its own, and ends each control.
            if ended and (how.outcome != "superseded" or shadow.role == "challenger"):
                announce_shadow_end(connection, shadow, how)
            return ended

    def announce_waiting(self, shadow: ShadowRecord, version: int) -> None:
        """Write the event of a version that passed the gate and waits for the end of another version's shadow."""
        with self._transaction() as connection:
            announce_waiting(connection, shadow, version)

    def shadows(self, model: str) -> list[ShadowRecord]:
        """All shadows of a model, oldest first."""
        with self._reading() as connection:
            return shadows.of_model(connection, model)

    def open_shadows(self, model: str) -> list[ShadowRecord]:
        """The signed shadows without a decision; each ends when Production changes."""
        with self._reading() as connection:
            running = [shadow for shadow in shadows.of_model(connection, model) if shadow.end is None]
            if not running:
                return []
            last, signed = self._last(connection, model), shadows.signed(connection, model, self.keys)
        return [s for s in running if last is not None and s.sequence == last.sequence and s.number in signed]

    def shadow_counts(self, models: Collection[str]) -> dict[str, ShadowCounts]:
        """Counts by model that change with each entry on which `open_shadows` depends, in a tenth of its time."""
        with self._reading() as connection:
            return shadows.counts(connection, models)

    def manifest(self, model: str, version: int, run_id: str) -> Manifest | None:
        """The digests of a version's files; None if the version has no manifest that a trusted key signed."""
        with self._reading() as connection:
            return manifests.find(connection, model, version, run_id, self.keys)

    def manifests(self, model: str) -> list[Manifest]:
        """All manifests of a model's versions, the last recorded one first."""
        with self._reading() as connection:
            return manifests.registered(connection, model, self.keys)

    def of_family(self, model: str, family: str) -> list[tuple[int, str]]:
        """Versions of a family and their runs, the last registered one first."""
        with self._reading() as connection:
            return manifests.of_family(connection, model, family, self.keys)

    def families(self, model: str) -> set[str]:
        """The families that have a version, by the manifests of their trainings."""
        with self._reading() as connection:
            return manifests.families(connection, model)

    def attest(self, model: str, run_id: str, files: Mapping[str, str], facts: Facts) -> bytes:
        """Record and sign the files of a model that its training process has written, before it uploads them.

        Returns:
            The signature: the content of `model.sig`.

        Raises:
            SettingsError: this process has no signing key, or it cannot be used.
        """
        signed = signature.signed(self.keys, model, files)
        self.record_manifest(Manifest(model, TRAINED, run_id, files, facts, signature=signed.decode()))
        return signed

    def attested(self, model: str, run_id: str) -> Manifest | None:
        """What the training process recorded of a run's model; None if none did."""
        return self.manifest(model, TRAINED, run_id)

    def is_attested(self, model: str, run_id: str) -> bool:
        """Whether a training process recorded a run's model, and registration has not refused its files."""
        with self._reading() as connection:
            recorded = manifests.find(connection, model, TRAINED, run_id, self.keys)
            return recorded is not None and not verdicts.is_refused_run(connection, model, run_id, self.keys)

    def add_verdict(self, model: str, version: int, run_id: str, verdict: Verdict) -> None:
        """Record a verdict on a version, unless its last one is the same."""
        with self._transaction() as connection:
            verdicts.add(connection, model, version, run_id, verdict, self.keys.settings)

    def passed(self, model: str, version: int, run_id: str) -> bool:
        """Whether the gate let a version pass, by a verdict that a trusted key signed."""
        with self._reading() as connection:
            return verdicts.is_passed(connection, model, version, run_id, self.keys)

    def verdicts(self, model: str) -> dict[tuple[int, str], Verdict]:
        """The last verdict on each version that has one, by version and run."""
        with self._reading() as connection:
            # Promotions of an older dosel, which recorded no verdicts, have the gate's report.
            entered = {
                (entry.to_version, entry.evidence.to_run or ""): Verdict(True, entry.reason, entry.evidence.gate)
                for entry in self._signed(connection, model)
                if entry.evidence.kind == "gate"
            }
            return entered | verdicts.last(connection, model, self.keys)

    def looks(self, model: str) -> list[PastLook]:
        """The gate's comparisons of a model's versions, oldest first."""
        with self._reading() as connection:
            return distinct(verdicts.reports(connection, model, self.keys))

    def orphans_since(self, folders: Collection[str]) -> dict[str, datetime]:
        """When each of these folders was first listed as an orphan; all other folders are forgotten."""
        with self._transaction() as connection:
            return orphans.since(connection, folders)

    def record_manifest(self, manifest: Manifest) -> Manifest:
        """Record a version's manifest, unless the version has one; return the version's manifest."""
        key = (manifest.model, manifest.version, manifest.run_id)
        try:
            with self._transaction() as connection:
                if manifests.find(connection, *key, self.keys) is None:
                    manifests.add(connection, manifest, self.keys.settings)
        except IntegrityError:
            # Another process recorded it at the same time, or the recorded one is not signed.
            pass
        return self.manifest(*key) or manifest

    def referenced_runs(self) -> set[str]:
        """The runs that any entry or manifest names, of all models."""
        with self._reading() as connection:
            entries = select(PROMOTIONS.c.to_run).where(PROMOTIONS.c.to_run.is_not(None))
            return {str(run) for run in connection.scalars(entries)} | manifests.run_ids(connection)

    def projected(self, model: str) -> int:
        """The sequence of the last entry that was written to MLflow; 0 if none was."""
        with self._reading() as connection:
            return connection.scalar(select(PROJECTIONS.c.sequence).where(PROJECTIONS.c.model == model)) or 0

    def mark_projected(self, model: str, sequence: int) -> None:
        """Record that an entry was written to MLflow. The caller holds the model's lock."""
        with self._transaction() as connection:
            mine = PROJECTIONS.c.model == model
            if connection.scalar(select(PROJECTIONS.c.sequence).where(mine)) is None:
                connection.execute(insert(PROJECTIONS).values(model=model, sequence=sequence))
            else:
                connection.execute(update(PROJECTIONS).where(mine).values(sequence=sequence))

    def note(self, model: str, text: str) -> bool:
        """Add a note, unless the last one has the same text after the same entry; return whether it was added."""
        with self._transaction() as connection:
            last = self._last(connection, model)
            return notes.add(connection, model, last.sequence if last else 0, text)

    def notes(self, model: str) -> list[Note]:
        """All notes of a model, oldest first."""
        with self._reading() as connection:
            return notes.of_model(connection, model)

    def _append(
        self,
        model: str,
        to_version: int,
        actor: str,
        reason: str,
        evidence: Evidence,
        after: int | None,
        ends: tuple[ShadowRecord, ShadowEnd] | None,
    ) -> Promotion:
        with self._transaction() as connection:
            last = self._last(connection, model)
            if last is not None and is_same(last, to_version, evidence.to_run):
                return last
            sequence = last.sequence if last else 0
            if after is not None and sequence != after:
                raise PromotionConflict(
                    f"{model}: Production changed during the decision; read the ledger and decide again"
                )
            newest, now = _newest(connection, model), datetime.now(UTC)
            if last is not None and last.at > now + CLOCK_TOLERANCE:
                # The last entry is dated in the future, so that one of the two clocks is wrong.
                jump = f"{(last.at - now).total_seconds():,.0f} s"
                notes.add(
                    connection,
                    model,
                    last.sequence,
                    f"the clock jumped: entry {last.sequence} is dated {jump} ahead of this clock "
                    f"({now:%Y-%m-%d %H:%M:%S} UTC), so the next entry gets its date; `sequence` is the order",
                )
            values = {
                "model": model,
                # Unsigned entries keep their numbers, so that they count, too.
                "sequence": (newest["sequence"] if newest else 0) + 1,
                "from_version": last.to_version if last else None,
                "to_version": to_version,
                "at": (max(now, last.at) if last else now).replace(tzinfo=None),
                "actor": actor[:255],
                "reason": fitting(reason),
                "kind": evidence.kind,
                "to_run": evidence.to_run,
                "data_digest": evidence.data_digest,
                "manifest_digest": evidence.manifest_digest,
                "metrics_before": json.dumps(dict(evidence.metrics_before)),
                "metrics_after": json.dumps(dict(evidence.metrics_after)),
                "gate": json.dumps(evidence.gate) if evidence.gate is not None else None,
                "live": json.dumps(evidence.live) if evidence.live is not None else None,
                "request": evidence.request,
            }
            if ends is not None and not shadows.end(connection, *ends):
                raise PromotionConflict(f"{model}: the shadow {ends[0].number} has ended; read the ledger again")
            signed_entries.add(connection, PROMOTIONS, values, self.keys.settings)
            entry = self._last(connection, model)
            assert entry is not None
            announce_promotion(connection, entry)
            return entry

    def _last(self, connection: Connection, model: str) -> Promotion | None:
        """The last signed entry; usually the last one of all, without reading the others."""
        newest = _newest(connection, model)
        if newest is None or signed_entries.proven(connection, PROMOTIONS, [newest], self.keys):
            return _promotion(newest) if newest else None
        return next(reversed(self._signed(connection, model)), None)

    def _signed(self, connection: Connection, model: str) -> list[Promotion]:
        """The signed entries, oldest first."""
        rows = signed_entries.proven(connection, PROMOTIONS, _rows(connection, model), self.keys)
        return [_promotion(row) for row in rows]

    @property
    def engine(self) -> Engine:
        return self._engine

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A transaction in which the tables exist; opening the ledger alone sends nothing to the data store."""
        self._migrate()
        with transaction(self._engine) as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        self._migrate()
        with reading(self._engine) as connection:
            yield connection

    def _migrate(self) -> None:
        if not self._migrated:
            migrate(self._engine)
            self._migrated = True


def is_same(last: Promotion, to_version: int, run_id: str | None) -> bool:
    """Whether an entry names this very version: another MLflow numbers its versions from 1 again."""
    known = last.evidence.to_run
    return last.to_version == to_version and (known is None or run_id is None or known == run_id)


def _rows(connection: Connection, model: str) -> Sequence[RowMapping]:
    """A model's entries, signed or not, oldest first."""
    query = select(PROMOTIONS).where(PROMOTIONS.c.model == model).order_by(PROMOTIONS.c.sequence)
    return connection.execute(query).mappings().all()


def _newest(connection: Connection, model: str) -> RowMapping | None:
    """A model's last entry, signed or not."""
    query = select(PROMOTIONS).where(PROMOTIONS.c.model == model).order_by(PROMOTIONS.c.sequence.desc()).limit(1)
    return connection.execute(query).mappings().first()


def _promotion(row: RowMapping) -> Promotion:
    evidence = Evidence(
        # Entries without a kind are of an older dosel, in which only the gate promoted.
        kind=row["kind"] or "gate",
        to_run=row["to_run"],
        data_digest=row["data_digest"],
        manifest_digest=row["manifest_digest"],
        metrics_before=json.loads(row["metrics_before"] or "{}"),
        metrics_after=json.loads(row["metrics_after"] or "{}"),
        gate=json.loads(row["gate"]) if row["gate"] else None,
        live=json.loads(row["live"]) if row["live"] else None,
        request=row["request"],
    )
    values = {f.name: row[f.name] for f in fields(Promotion) if f.name != "evidence"}
    return Promotion(**values | {"at": row["at"].replace(tzinfo=UTC), "evidence": evidence})
