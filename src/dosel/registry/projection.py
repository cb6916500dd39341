"""The ledger's projection onto MLflow: the aliases `production` and `previous`, and the stage Production.

`sync_aliases` is the only function that writes them. Promote, roll back and reconcile call it while they hold the
model's lock, since MLflow moves aliases and stages without one.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from dosel.db.locks import NamedLock
from dosel.errors import ModelNotFound, UntrustedModel
from dosel.model import tags
from dosel.model.facts import held_out
from dosel.registry.approvals import needed
from dosel.registry.attested import read_version
from dosel.registry.file_verification import check_promotable
from dosel.registry.ledger import Evidence, Kind, Promotion, PromotionLedger
from dosel.registry.store import ARCHIVED, STAGE, ModelVersion, Registered, Store

PRODUCTION = "production"
PREVIOUS = "previous"
CHALLENGER = "challenger"
"""Alias of the version in shadow."""

OUTSIDE = "somebody in MLflow"
"""The actor of an entry for an alias that was moved outside dosel."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Projection:
    """The state of Production after MLflow was synchronised with the ledger.

    Attributes:
        entry: the ledger's last entry; None if there is none.
        version: the version that the entry names; None if MLflow does not have it.
        notes: the differences that were found, as sentences.
    """

    entry: Promotion | None
    version: ModelVersion | None
    notes: tuple[str, ...] = ()


def sync_aliases(lock: NamedLock, store: Store, ledger: PromotionLedger, name: str) -> Projection:
    """Set aliases and stage to the ledger's last entry. Idempotent: a call that was killed is finished by the next.

    If somebody moved the alias `production` outside dosel, a new entry records the move if the API could load the
    version, `_refusal` has nothing against it, and the use case needs no approvals. Otherwise the alias is put back,
    with a note. The stage and the families' aliases are put back in any case.
    """
    last, unsigned = ledger.last(name), ledger.unsigned(name)
    if last is None and unsigned:
        raise UntrustedModel(
            f"{name}: no entry of the promotion ledger has the signature of a trusted key. If an older dosel wrote "
            "them, run `dosel sign`"
        )
    known = store.registered(name)
    notes = _sync_families(lock, store, ledger, name, known)
    if unsigned:
        listed = ", ".join(map(str, unsigned))
        notes.append(
            f"the promotion ledger has entries without the signature of a trusted key ({listed}), which are not "
            "followed: somebody who can write to the data store added them (`dosel verify`)"
        )
    version = entered(store, ledger, last) if last else None
    found = known.aliases.get(PRODUCTION)
    # If MLflow has lost the ledger's version, dosel did not set the alias either.
    if found is not None and (version is None or _moved_outside(ledger, last, found)):
        try:
            last = _followed(store, ledger, last, version, name, found)
            version = entered(store, ledger, last)
        except (ModelNotFound, UntrustedModel) as error:
            notes.append(f"the alias production was moved to version {found} outside dosel and is put back: {error}")
    if last is None:
        if found is not None:
            lock.check()
            store.set_alias(name, PRODUCTION, None)
        return _recorded(ledger, name, Projection(None, None, tuple(notes)))
    if version is None:
        notes.append(
            f"MLflow has lost version {last.to_version}, which is in Production by the ledger (it was deleted, or this "
            "is another MLflow). Promote another version, or wait for the next training"
        )
        if found is not None:
            lock.check()
            store.set_alias(name, PRODUCTION, None)
        return _recorded(ledger, name, Projection(last, None, tuple(notes)))

    notes += _write(lock, store, ledger, last, known)
    return _recorded(ledger, name, Projection(last, version, tuple(notes)))


def entered(store: Store, ledger: PromotionLedger, entry: Promotion) -> ModelVersion | None:
    """The version that an entry put into Production; None if MLflow has lost it."""
    try:
        version = read_version(store, ledger, entry.model, entry.to_version)
    except ModelNotFound:
        return None
    known = entry.evidence.to_run
    # An old entry without a run id: a version created after it cannot be the one it names.
    same = version.run_id == known if known is not None else version.created_at <= entry.at
    return version if same else None


def _moved_outside(ledger: PromotionLedger, last: Promotion | None, found: int) -> bool:
    """Whether neither the ledger nor an interrupted promotion explains where the alias is."""
    if last is None:
        return True
    if found == last.to_version:
        return False
    done = ledger.projected(last.model)
    if done >= last.sequence:
        return True
    pending = {entry.to_version for entry in ledger.history(last.model) if entry.sequence >= done}
    return found not in pending


def _followed(
    store: Store, ledger: PromotionLedger, last: Promotion | None, before: ModelVersion | None, name: str, found: int
) -> Promotion:
    version = read_version(store, ledger, name, found)
    check_promotable(store, ledger, version)
    if any(needed(name, kind) for kind in ("manual", "gate", "shadow")):
        raise UntrustedModel(f"{name} needs the approval of people, which an alias does not have")
    if refusal := _refusal(ledger, version):
        raise UntrustedModel(f"{refusal}; run `dosel promote {name} {found} --reason …` to accept it")
    evidence = evidence_of(ledger, version, before, "followed")
    reason = "the alias production was moved to it outside dosel"
    entry = ledger.append(name, found, OUTSIDE, reason, evidence, after=last.sequence if last else 0)
    log.warning("%s version %d: %s; recorded", name, found, reason)
    return entry


def _refusal(ledger: PromotionLedger, version: ModelVersion) -> str:
    """Why an alias that was moved in MLflow is not followed to a version; "" if it is.

    The alias is followed to a version that an entry other than `followed` put into Production and that was not rolled
    back since, and to a version that passed the gate and did not have to answer in shadow first.
    """
    number, was_let_in, was_rolled_back = version.version, False, False
    for entry in ledger.history(version.name):
        if entry.evidence.kind == "rollback" and entry.from_version == number:
            was_rolled_back = True
        if (entry.to_version, entry.evidence.to_run) == (number, version.run_id) and entry.evidence.kind != "followed":
            was_let_in, was_rolled_back = True, False
    if was_rolled_back:
        return f"version {number} was rolled back"
    if was_let_in:
        return ""
    if any((shadow.version, shadow.run_id) == (number, version.run_id) for shadow in ledger.shadows(version.name)):
        return f"version {number} was in shadow, and did not enter Production from there"
    if not ledger.passed(version.name, number, version.run_id):
        return f"neither the gate nor a person let version {number} into Production"
    return ""


def evidence_of(ledger: PromotionLedger, version: ModelVersion, before: ModelVersion | None, kind: Kind) -> Evidence:
    """The evidence of a promotion that the gate did not judge."""
    manifest = ledger.manifest(version.name, version.version, version.run_id)
    return Evidence(
        kind=kind,
        to_run=version.run_id,
        data_digest=version.tags.get(tags.DATA_DIGEST),
        manifest_digest=manifest.digest if manifest else None,
        metrics_before=held_out(before.metrics) if before else {},
        metrics_after=held_out(version.metrics),
    )


def _write(lock: NamedLock, store: Store, ledger: PromotionLedger, last: Promotion, known: Registered) -> list[str]:
    """Set aliases and stage to the ledger's last entry; return notes on what was moved outside dosel.

    `known` is not read again: if somebody has moved an alias since, the next call finds and notes that.
    """
    name, notes = last.model, []
    if known.aliases.get(PRODUCTION) != last.to_version:
        lock.check()
        store.set_alias(name, PRODUCTION, last.to_version)
    before = last.from_version if last.from_version != last.to_version and last.from_version in known.runs else None
    if known.aliases.get(PREVIOUS) != before:
        lock.check()
        store.set_alias(name, PREVIOUS, before)
    running = (shadow.version for shadow in ledger.open_shadows(name) if shadow.role == "challenger")
    if known.aliases.get(CHALLENGER) != (challenger := next(running, None)):
        lock.check()
        store.set_alias(name, CHALLENGER, challenger)
    staged, done = known.staged, ledger.projected(name)
    if staged != {last.to_version} and done == last.sequence:
        were = ", ".join(map(str, sorted(staged))) or "no version"
        notes.append(f"the stage Production was moved to {were} outside dosel and is put back")
    for number in staged - {last.to_version}:
        lock.check()
        store.set_stage(name, number, ARCHIVED)
    if last.to_version not in staged:
        lock.check()
        store.set_stage(name, last.to_version, STAGE)
    if done != last.sequence:
        lock.check()
        ledger.mark_projected(name, last.sequence)
    return notes


def _sync_families(lock: NamedLock, store: Store, ledger: PromotionLedger, name: str, known: Registered) -> list[str]:
    """Set each family's alias to its newest version by the ledger; return notes on those that were moved elsewhere."""
    notes = []
    for family in ledger.families(name):
        found, newest = known.aliases.get(family), _newest(ledger, name, family, known.runs.get)
        if newest is None or found == newest:
            continue
        lock.check()
        store.set_alias(name, family, newest)
        # No alias, or one of an earlier version, is what a registration leaves that was killed.
        if found is not None and found not in {number for number, _ in ledger.of_family(name, family)}:
            notes.append(f"the alias {family} was moved to version {found} outside dosel and is put back")
    return notes


def newest_of(store: Store, ledger: PromotionLedger, name: str, family: str) -> int | None:
    """A family's newest version by the ledger; None if there is none, or MLflow has lost them all."""
    return _newest(ledger, name, family, lambda number: store.run_of(name, number))


def _newest(ledger: PromotionLedger, name: str, family: str, run_of: Callable[[int], str | None]) -> int | None:
    known = ledger.of_family(name, family)
    return next((number for number, run_id in known if run_of(number) == run_id), None)


def _recorded(ledger: PromotionLedger, name: str, projection: Projection) -> Projection:
    for text in projection.notes:
        # Each poll finds the same difference again; the ledger and the log get it once.
        if ledger.note(name, text):
            log.error("%s: %s", name, text)
    return projection
