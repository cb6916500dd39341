"""The promotion ledger: append-only, the truth about what was in Production when, by whom and why."""

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, RowMapping, insert, select, update
from sqlalchemy.exc import IntegrityError

from dosel.db import locks
from dosel.db.engine import transaction
from dosel.db.tables import MANIFESTS, NOTES, PROJECTIONS, PROMOTIONS, add_missing_columns, create
from dosel.errors import PromotionConflict
from dosel.registry import manifests
from dosel.registry.manifests import Manifest

Kind = Literal["gate", "manual", "rollback", "followed"]
"""Who moved Production: the gate, a person, a person going back, or somebody in MLflow whom dosel followed."""

ATTEMPTS = 5


@dataclass(frozen=True)
class Evidence:
    """What a move rests on. `gate` is the gate's whole report, as `gate.json` has it; None if it was not asked."""

    kind: Kind = "manual"
    to_run: str | None = None
    data_digest: str | None = None
    manifest_digest: str | None = None
    metrics_before: Mapping[str, float] = field(default_factory=dict)
    metrics_after: Mapping[str, float] = field(default_factory=dict)
    gate: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Promotion:
    """One move of Production; `sequence` counts a model's moves from 1, without gaps."""

    model: str
    sequence: int
    from_version: int | None
    to_version: int
    at: datetime
    actor: str
    reason: str
    evidence: Evidence = Evidence()


@dataclass(frozen=True)
class Note:
    """Something that went wrong around Production without moving it, after the entry of that sequence."""

    sequence: int
    at: datetime
    text: str


class PromotionLedger:
    """Entries are added, never changed: each one's from-version is the one before's to-version."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._made = False

    def lock(self, model: str) -> AbstractContextManager[locks.ModelLock]:
        """The turn of whoever moves Production of a model, in the ledger and in MLflow."""
        return locks.hold(self._engine, f"moving Production of {model}")

    def append(
        self,
        model: str,
        to_version: int,
        actor: str,
        reason: str,
        evidence: Evidence = Evidence(),
        after: int | None = None,
    ) -> Promotion:
        """Records that `to_version` is in Production from now on; already there, it records nothing.

        Args:
            after: the sequence of the entry this one must follow, 0 for none; left out, whichever is the last.

        Raises:
            PromotionConflict: another entry is the last one by now; look again and decide anew.
        """
        for _ in range(ATTEMPTS):
            try:
                return self._append(model, to_version, actor, reason, evidence, after)
            except IntegrityError:
                # Another process took this sequence; who need not follow a certain entry takes the next.
                continue
        raise PromotionConflict(f"{model} was promoted by others {ATTEMPTS} times in this very moment; try again")

    def last(self, model: str) -> Promotion | None:
        with self._transaction() as connection:
            return _last(connection, model)

    def history(self, model: str, until: datetime | None = None) -> list[Promotion]:
        """All moves of a model up to a moment, oldest first; the last one says what was in Production then."""
        query = select(PROMOTIONS).where(PROMOTIONS.c.model == model).order_by(PROMOTIONS.c.sequence)
        if until is not None:
            query = query.where(PROMOTIONS.c.at <= until.astimezone(UTC).replace(tzinfo=None))
        with self._transaction() as connection:
            return [_promotion(row) for row in connection.execute(query).mappings()]

    def manifest(self, model: str, version: int, run_id: str) -> Manifest | None:
        """What the files of a version were when it was registered; None if dosel did not register it."""
        with self._transaction() as connection:
            return manifests.find(connection, model, version, run_id)

    def record_manifest(self, manifest: Manifest) -> Manifest:
        """Record a manifest, and return the one that counts: the first of a version stays."""
        key = (manifest.model, manifest.version, manifest.run_id)
        try:
            with self._transaction() as connection:
                if manifests.find(connection, *key) is None:
                    manifests.add(connection, manifest)
        except IntegrityError:
            # Another process has kept it in the same moment, or the one that is kept does not fit its own digest.
            pass
        return self.manifest(*key) or manifest

    def named_runs(self) -> set[str]:
        """Every run that an entry or a manifest names, of whatever model."""
        with self._transaction() as connection:
            entries = select(PROMOTIONS.c.to_run).where(PROMOTIONS.c.to_run.is_not(None))
            return {str(run) for run in connection.scalars(entries)} | manifests.run_ids(connection)

    def projected(self, model: str) -> int:
        """The sequence up to which MLflow was brought to the ledger; 0 if it never was."""
        with self._transaction() as connection:
            return connection.scalar(select(PROJECTIONS.c.sequence).where(PROJECTIONS.c.model == model)) or 0

    def mark_projected(self, model: str, sequence: int) -> None:
        """Called by whoever has the model's turn."""
        with self._transaction() as connection:
            mine = PROJECTIONS.c.model == model
            if connection.scalar(select(PROJECTIONS.c.sequence).where(mine)) is None:
                connection.execute(insert(PROJECTIONS).values(model=model, sequence=sequence))
            else:
                connection.execute(update(PROJECTIONS).where(mine).values(sequence=sequence))

    def note(self, model: str, text: str) -> bool:
        """Adds a note; the same one twice in a row after the same entry is kept once. Gives whether it is new."""
        with self._transaction() as connection:
            last = _last(connection, model)
            sequence = last.sequence if last else 0
            mine = select(NOTES).where(NOTES.c.model == model).order_by(NOTES.c.id.desc()).limit(1)
            before = connection.execute(mine).first()
            if before is not None and (before.sequence, before.text) == (sequence, text):
                return False
            now = datetime.now(UTC).replace(tzinfo=None)
            connection.execute(insert(NOTES).values(model=model, sequence=sequence, at=now, text=text))
            return True

    def notes(self, model: str) -> list[Note]:
        """All notes of a model, oldest first."""
        query = select(NOTES).where(NOTES.c.model == model).order_by(NOTES.c.id)
        with self._transaction() as connection:
            return [Note(r.sequence, r.at.replace(tzinfo=UTC), r.text) for r in connection.execute(query)]

    def _append(
        self, model: str, to_version: int, actor: str, reason: str, evidence: Evidence, after: int | None
    ) -> Promotion:
        with self._transaction() as connection:
            last = _last(connection, model)
            if last is not None and _same(last, to_version, evidence.to_run):
                return last
            sequence = last.sequence if last else 0
            if after is not None and sequence != after:
                raise PromotionConflict(f"{model} was promoted by somebody else meanwhile; look again and decide anew")
            now = datetime.now(UTC)
            values = {
                "model": model,
                "sequence": sequence + 1,
                "from_version": last.to_version if last else None,
                "to_version": to_version,
                # A clock that runs behind another machine's must not put an entry before the one it follows.
                "at": (max(now, last.at) if last else now).replace(tzinfo=None),
                "actor": actor[:255],
                "reason": reason,
                "kind": evidence.kind,
                "to_run": evidence.to_run,
                "data_digest": evidence.data_digest,
                "manifest_digest": evidence.manifest_digest,
                "metrics_before": json.dumps(dict(evidence.metrics_before)),
                "metrics_after": json.dumps(dict(evidence.metrics_after)),
                "gate": json.dumps(evidence.gate) if evidence.gate is not None else None,
            }
            connection.execute(insert(PROMOTIONS).values(values))
            entry = _last(connection, model)
            assert entry is not None
            return entry

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A transaction in which the tables exist; opening the ledger alone asks nothing of the data store."""
        with transaction(self._engine) as connection:
            if not self._made:
                create(connection, PROMOTIONS, PROJECTIONS, MANIFESTS, NOTES)
                add_missing_columns(connection, PROMOTIONS)
            yield connection
        self._made = True


def _same(last: Promotion, to_version: int, run_id: str | None) -> bool:
    """Whether an entry is about this very version: a fresh MLflow counts its own from 1 again."""
    known = last.evidence.to_run
    return last.to_version == to_version and (known is None or run_id is None or known == run_id)


def _last(connection: Connection, model: str) -> Promotion | None:
    query = select(PROMOTIONS).where(PROMOTIONS.c.model == model).order_by(PROMOTIONS.c.sequence.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return _promotion(row) if row else None


def _promotion(row: RowMapping) -> Promotion:
    evidence = Evidence(
        # Before there were kinds, there was only the gate.
        kind=row["kind"] or "gate",
        to_run=row["to_run"],
        data_digest=row["data_digest"],
        manifest_digest=row["manifest_digest"],
        metrics_before=json.loads(row["metrics_before"] or "{}"),
        metrics_after=json.loads(row["metrics_after"] or "{}"),
        gate=json.loads(row["gate"]) if row["gate"] else None,
    )
    values = {f.name: row[f.name] for f in fields(Promotion) if f.name != "evidence"}
    return Promotion(**values | {"at": row["at"].replace(tzinfo=UTC), "evidence": evidence})
