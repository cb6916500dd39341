"""The figures of the data store that `/metrics` shows: health, batches and outbox."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine

from dosel.db.engine import reading
from dosel.monitor.health import Health, health
from dosel.monitor.outbox import Waiting, waiting_events
from dosel.monitor.targets import target_names
from dosel.monitor.truths import TruthStore
from dosel.registry.ledger import PromotionLedger
from dosel.settings import Settings
from dosel.usecases import UseCase
from dosel.warehouse.totals import BatchTotals, batch_totals


@dataclass(frozen=True)
class Figures:
    """What the data store held at one time.

    Attributes:
        healths: the health of each version in Production, as its readers see it.
        batches: totals by the use case's name.
        waiting: what waits for each configured receiver of messages.
    """

    healths: Sequence[Health]
    batches: Mapping[str, BatchTotals]
    waiting: Sequence[Waiting]


def read_figures(engine: Engine, use_cases: Sequence[UseCase], settings: Settings) -> Figures:
    """Read the figures now.

    Raises:
        WarehouseError: the data store cannot be reached, or failed.
    """
    ledger, truths = PromotionLedger(engine), TruthStore(engine)
    found = [health(use_case, ledger, truths, for_readers=True) for use_case in use_cases]
    with reading(engine) as connection:
        totals = batch_totals(connection)
        waiting = waiting_events(connection, target_names(settings), datetime.now(UTC))
    # The data store may hold batches of use cases that this installation does not serve.
    batches = {use_case.name: totals[use_case.name] for use_case in use_cases if use_case.name in totals}
    return Figures([one for one in found if one is not None], batches, waiting)
