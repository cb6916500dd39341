"""The place of one loaded model, and what is known of it."""

from dataclasses import dataclass
from datetime import datetime

from app.serving.loaded_model import LoadedModel
from dosel.usecases import UseCase


@dataclass
class Slot:
    """The loaded model of a use case, or of one of its families. One poll at a time writes; reading takes no lock.

    Attributes:
        family: whose newest version is loaded; "" for the version in Production.
        stale: the last poll could not confirm that `loaded` is in Production.
        checked: the ledger has confirmed the manifest of `loaded`.
        confirmed: MLflow has confirmed the run of `loaded`, too.
        newest: the ledger's last entry at the last complete poll, signed or not; if -1, the next poll asks MLflow.
        sequence: the ledger's signed entry that the last complete poll confirmed; -1 before the first.
        followed: the last entry that this machine has followed, also before a restart, since a ledger never ends
            earlier; None before the first poll has read it.
        ask_at: when MLflow is asked again even if the ledger has no new entry.
        reconcile_at: when MLflow is compared with the ledger the next time.
        waiting_for: what keeps the slot from following Production; "" while it does.
        last_outcome: the kind of the last poll's outcome, so that equal ones are logged once.
        stale_since: when polls began to fail; None while they do not.
        stale_reported: the event of this period is written.
        failing: the number of a version that could not be loaded; it is tried again at `retry_at`.
    """

    use_case: UseCase
    family: str = ""
    loaded: LoadedModel | None = None
    stale: bool = True
    checked: bool = False
    confirmed: bool = False
    newest: int = -1
    sequence: int = -1
    followed: int | None = None
    ask_at: float = 0.0
    reconcile_at: float = 0.0
    swaps: int = 0
    waiting_for: str = "the first read of the registry"
    failed: bool = False
    last_outcome: str = ""
    stale_since: datetime | None = None
    stale_reported: bool = False
    failing: int | None = None
    pause: float = 0.0
    retry_at: float = 0.0

    @property
    def cache_name(self) -> str:
        name = self.use_case.model_name
        return f"{name}@{self.family}" if self.family else name
