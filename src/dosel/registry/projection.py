"""The ledger's projection onto MLflow: the aliases `production` and `previous`, and the stage Production.

`sync_aliases` is the one function that writes them. Promote, roll back and reconcile all call it, each
in the model's turn: MLflow moves aliases and stages without a lock of its own.
"""

import logging
from dataclasses import dataclass

from dosel.db.locks import ModelLock
from dosel.errors import ModelNotFound, UntrustedModel
from dosel.model import tags
from dosel.registry.ledger import Evidence, Kind, Promotion, PromotionLedger
from dosel.registry.store import ARCHIVED, STAGE, ModelVersion, Store
from dosel.registry.trust import trusted_files

PRODUCTION = "production"
PREVIOUS = "previous"

OUTSIDE = "somebody in MLflow"
"""Who moved the alias `production`, as far as we can know."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Projection:
    """How MLflow stands to the ledger.

    `entry` is the ledger's last entry, None if there is none; `version` the version it names, None if MLflow
    does not have that. `notes` is what was found amiss now, in words.
    """

    entry: Promotion | None
    version: ModelVersion | None
    notes: tuple[str, ...] = ()


def sync_aliases(lock: ModelLock, store: Store, ledger: PromotionLedger, name: str) -> Projection:
    """Brings aliases and stage to the ledger's last entry. Idempotent; ended anywhere, the next call ends it.

    The alias moved by somebody else is followed, by an entry of its own, to a version that dosel registered
    and whose files are what they were. From any other it is put back, with a note.
    """
    notes = []
    last = ledger.last(name)
    version = entered(store, last) if last else None
    found = store.alias(name, PRODUCTION)
    # What the ledger speaks of is gone: then nothing of dosel's has put the alias where it is.
    if found is not None and (version is None or _moved_outside(ledger, last, found)):
        try:
            last = _followed(store, ledger, last, version, name, found)
            version = entered(store, last)
        except (ModelNotFound, UntrustedModel) as error:
            notes.append(f"the alias production was moved to version {found} outside dosel and is put back: {error}")
    if last is None:
        if found is not None:
            lock.check()
            store.set_alias(name, PRODUCTION, None)
        return _told(ledger, name, Projection(None, None, tuple(notes)))
    if version is None:
        notes.append(
            f"version {last.to_version}, which is in Production by the ledger, is gone from MLflow "
            "(deleted there, or this is another MLflow). The next training brings another, or promote one by hand"
        )
        if found is not None:
            lock.check()
            store.set_alias(name, PRODUCTION, None)
        return _told(ledger, name, Projection(last, None, tuple(notes)))

    _write(lock, store, ledger, last)
    return _told(ledger, name, Projection(last, version, tuple(notes)))


def entered(store: Store, entry: Promotion) -> ModelVersion | None:
    """The version that an entry put into Production; None if MLflow has lost it."""
    try:
        version = store.version(entry.model, entry.to_version)
    except ModelNotFound:
        return None
    known = entry.evidence.to_run
    # An entry from before runs were noted: what was made after it cannot be what it speaks of.
    same = version.run_id == known if known is not None else version.created_at <= entry.at
    return version if same else None


def _moved_outside(ledger: PromotionLedger, last: Promotion | None, found: int) -> bool:
    """Whether the alias stands where neither the ledger nor a move that was ended half-way has put it."""
    if last is None:
        return True
    if found == last.to_version:
        return False
    done = ledger.projected(last.model)
    if done >= last.sequence:
        return True
    on_the_way = {entry.to_version for entry in ledger.history(last.model) if entry.sequence >= done}
    return found not in on_the_way


def _followed(
    store: Store, ledger: PromotionLedger, last: Promotion | None, before: ModelVersion | None, name: str, found: int
) -> Promotion:
    version = store.version(name, found)
    with trusted_files(store, ledger, version):
        pass
    evidence = evidence_of(ledger, version, before, "followed")
    reason = "the alias production was moved to it outside dosel"
    entry = ledger.append(name, found, OUTSIDE, reason, evidence, after=last.sequence if last else 0)
    log.warning("%s version %d: %s; recorded", name, found, reason)
    return entry


def evidence_of(ledger: PromotionLedger, version: ModelVersion, before: ModelVersion | None, kind: Kind) -> Evidence:
    """What the ledger keeps of a move that the gate was not asked about."""
    manifest = ledger.manifest(version.name, version.version, version.run_id)
    return Evidence(
        kind=kind,
        to_run=version.run_id,
        data_digest=version.tags.get(tags.DATA_DIGEST),
        manifest_digest=manifest.digest if manifest else None,
        metrics_before=_test_metrics(before) if before else {},
        metrics_after=_test_metrics(version),
    )


def _write(lock: ModelLock, store: Store, ledger: PromotionLedger, last: Promotion) -> None:
    name = last.model
    if store.alias(name, PRODUCTION) != last.to_version:
        lock.check()
        store.set_alias(name, PRODUCTION, last.to_version)
    before = last.from_version if last.from_version != last.to_version else None
    if before is not None and not _is_there(store, name, before):
        before = None
    if store.alias(name, PREVIOUS) != before:
        lock.check()
        store.set_alias(name, PREVIOUS, before)
    staged = store.staged(name)
    for number in staged - {last.to_version}:
        lock.check()
        store.set_stage(name, number, ARCHIVED)
    if last.to_version not in staged:
        lock.check()
        store.set_stage(name, last.to_version, STAGE)
    if ledger.projected(name) != last.sequence:
        lock.check()
        ledger.mark_projected(name, last.sequence)


def _is_there(store: Store, name: str, number: int) -> bool:
    try:
        store.version(name, number)
    except ModelNotFound:
        return False
    return True


def _told(ledger: PromotionLedger, name: str, projection: Projection) -> Projection:
    for text in projection.notes:
        # Found again at every look until somebody does something; said once.
        if ledger.note(name, text):
            log.error("%s: %s", name, text)
    return projection


def _test_metrics(version: ModelVersion) -> dict[str, float]:
    return {
        metric.removeprefix("test_"): value
        for metric, value in version.metrics.items()
        if metric.startswith("test_") and value == value
    }
