"""The promotion ledger: append-only, the truth about what was in Production when, by whom and why."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, RowMapping, insert, select
from sqlalchemy.exc import IntegrityError

from dosel.errors import WarehouseError
from dosel.warehouse.engine import transaction
from dosel.warehouse.tables import PROMOTIONS, create


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


class PromotionLedger:
    """Entries are added, never changed: each one's from-version is the one before's to-version."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._made = False

    def append(self, model: str, to_version: int, actor: str, reason: str) -> Promotion:
        """Records that `to_version` is in Production from now on; already there, it records nothing.

        Raises:
            WarehouseError: somebody else moved Production in the same moment; look again and decide anew.
        """
        try:
            with self._transaction() as connection:
                last = _last(connection, model)
                if last is not None and last.to_version == to_version:
                    return last
                values = {
                    "model": model,
                    "sequence": last.sequence + 1 if last else 1,
                    "from_version": last.to_version if last else None,
                    "to_version": to_version,
                    "at": datetime.now(UTC).replace(tzinfo=None),
                    "actor": actor,
                    "reason": reason,
                }
                connection.execute(insert(PROMOTIONS).values(values))
                entry = _last(connection, model)
                assert entry is not None
                return entry
        except IntegrityError as error:
            raise WarehouseError(f"{model} was promoted by somebody else in this very moment; try again") from error

    def last(self, model: str) -> Promotion | None:
        with self._transaction() as connection:
            return _last(connection, model)

    def history(self, model: str) -> list[Promotion]:
        """All moves of a model, oldest first."""
        query = select(PROMOTIONS).where(PROMOTIONS.c.model == model).order_by(PROMOTIONS.c.sequence)
        with self._transaction() as connection:
            return [_promotion(row) for row in connection.execute(query).mappings()]

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A transaction in which the table exists; opening the ledger alone asks nothing of the data store."""
        with transaction(self._engine) as connection:
            if not self._made:
                create(connection, PROMOTIONS)
            yield connection
        self._made = True


def _last(connection: Connection, model: str) -> Promotion | None:
    query = select(PROMOTIONS).where(PROMOTIONS.c.model == model).order_by(PROMOTIONS.c.sequence.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return _promotion(row) if row else None


def _promotion(row: RowMapping) -> Promotion:
    values = {name: row[name] for name in Promotion.__dataclass_fields__}
    return Promotion(**values | {"at": row["at"].replace(tzinfo=UTC)})
