"""Reacts to proven harm: one note and one event for each time in Production, then the declared actions."""

import logging
from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy import Engine, func, select

from dosel.closed import shown
from dosel.db.engine import reading, transaction
from dosel.db.migrations import migrate
from dosel.db.tables import EVENTS, VERDICTS
from dosel.errors import PromotionConflict, PromotionRefused
from dosel.monitor.health import Finding, Health, health
from dosel.monitor.truths import TruthStore
from dosel.registry import notes
from dosel.registry.ledger import Promotion
from dosel.registry.registry import Registry
from dosel.registry.rollbacks import MONITOR, is_automatic, rollback_candidates, rolled_back
from dosel.usecases import UseCase
from dosel.warehouse import events
from dosel.warehouse.events import Event, EventStore, stored_event

NOT_TRAINED_YET = "no judged version was trained on these rows, by this dosel and declaration"

log = logging.getLogger(__name__)


def watch_for_harm(use_case: UseCase, registry: Registry, engine: Engine) -> Health | None:
    """Judge the version in Production; if it is harmed, record that once and do what the use case declares.

    Killed anywhere and called again, the note, the event and the rollback are there once.

    Returns:
        The health before any action; None while nothing is in Production.

    Raises:
        WarehouseError, RegistryError: the data store or MLflow cannot be reached, or refused.
    """
    found = health(use_case, registry.ledger, TruthStore(engine))
    if found is None or found.state != "harmed":
        return found
    rolls_back = "roll back" in use_case.monitor.on_harm
    stays = _why_it_stays(registry.ledger.history(found.model)) if rolls_back else ""
    event = harm_event(use_case, found, stays)
    with transaction(engine) as connection:
        if events.add(connection, event):
            notes.add(connection, found.model, found.sequence, f"harm: {event.evidence}")
            log.warning("%s: %s", event.what, shown(use_case, event.evidence))
    if rolls_back:
        _roll_back(registry, found, event, stays)
    return found


def is_harmed(engine: Engine, entry: Promotion) -> bool:
    """Whether the version of the ledger's entry was proven to be harmed."""
    return EventStore(engine).has(_incident(entry.model, entry.sequence))


def harm_event(use_case: UseCase, found: Health, stays: str = "") -> Event:
    """The event of a version that was proven to be harmed.

    Args:
        stays: why it stays in Production although the use case declares a rollback; empty if it does not.
    """
    name, policy = use_case.name, use_case.monitor.on_harm
    put_back = f"it stays in Production: {stays}" if stays else "the previous version is put back"
    follows = {"retrain": "a training with another seed starts", "roll back": put_back}
    automatic = [words for action, words in follows.items() if action in policy]
    what = f"{name}: version {found.version} answers worse than the gate promised"
    figures = "; ".join(map(_figures, found.harmed)) or f"proven within {found.labels:,} labelled rows"
    batches = f"; {found.from_batches:,} of the labelled rows came in batches" if found.from_batches else ""
    # If a declared action follows by itself, the event proposes no second training or rollback.
    acts = ("roll back" in policy and not stays) or ("retrain" in policy and (bool(stays) or found.previous is None))
    return Event(
        incident=_incident(found.model, found.sequence),
        use_case=name,
        kind="harmed",
        what=what + (f"; {' and '.join(automatic)}" if automatic else ""),
        evidence=f"{figures}{batches}; {found.coverage}",
        command=f"dosel health {name}" if acts else found.remedy,
        place=f"page/health?use_case={name}",
        since=found.harmed_since,
    )


def describe(found: Health) -> str:
    """The state of the version in Production, and its accuracy on live and on held-out rows, in words."""
    accuracy = found.findings[0]
    held_out = accuracy.promised
    promised = f"; {held_out.rate:.4f} on {held_out.total:,} held-out rows" if held_out and held_out.total else ""
    if not accuracy.live.total:
        return f"version {found.version} in Production has no labelled live rows that count yet{promised}"
    return (
        f"version {found.version} in Production is {found.state}: accuracy {accuracy.live.rate:.4f} "
        f"({accuracy.low:.4f} to {accuracy.high:.4f}) on {accuracy.live.total:,} labelled live rows{promised}"
    )


def training_seed(engine: Engine, use_case: UseCase, seed: int) -> tuple[int, str]:
    """The seed of the next training, and why it starts.

    If the use case declares `retrain`, the reason is a proven harm until a version has been judged after it; otherwise
    that there is no version of these rows. Each proven harm changes the seed: with the same rows and seed, a training
    gives the same model, so that it would not be due.
    """
    if "retrain" not in use_case.monitor.on_harm:
        return seed, NOT_TRAINED_YET
    migrate(engine)
    mine = (EVENTS.c.use_case == use_case.name) & (EVENTS.c.kind == "harmed")
    with reading(engine) as connection:
        harms = [
            stored_event(row) for row in connection.execute(select(EVENTS).where(mine).order_by(EVENTS.c.id)).mappings()
        ]
        judged = connection.scalar(select(func.max(VERDICTS.c.at)).where(VERDICTS.c.model == use_case.model_name))
    if not harms:
        return seed, NOT_TRAINED_YET
    last = harms[-1]
    is_over = judged is not None and judged >= last.at.replace(tzinfo=None)
    return seed + len(harms), NOT_TRAINED_YET if is_over else f"{last.what}: {last.evidence}"


def _incident(model: str, sequence: int) -> str:
    return f"harmed {model} {sequence}"


def _figures(finding: Finding) -> str:
    promised = finding.promised
    assert promised is not None
    return (
        f"{finding.name} {finding.live.rate:.4f} on {finding.live.total:,} labelled live rows "
        f"(the true figure is at most {finding.high:.4f}), {promised.rate:.4f} on {promised.total:,} held-out rows; "
        f"proven after {finding.harmed_at:,} of these live rows"
    )


def _why_it_stays(history: Sequence[Promotion]) -> str:
    """Why no automatic rollback takes the last version out of Production; empty if one does."""
    entry = history[-1]
    if is_automatic(entry) or entry.to_version in rolled_back(history):
        return "there was an automatic rollback already"
    if not rollback_candidates(history):
        return "there is no earlier version"
    return ""


def _roll_back(registry: Registry, found: Health, event: Event, stays: str) -> None:
    entry = registry.last_promotion(found.model)
    if entry is None or entry.sequence != found.sequence:
        return
    if stays:
        registry.ledger.note(found.model, f"version {entry.to_version} is harmed, and stays in Production: {stays}")
        return
    try:
        # A person may have moved Production meanwhile; that decision stays.
        with suppress(PromotionConflict):
            registry.roll_back(found.model, MONITOR, f"harm: {event.evidence}", after=found.sequence)
    except PromotionRefused as error:
        registry.ledger.note(found.model, f"harm was proven, but no version could be rolled back to: {error}")
