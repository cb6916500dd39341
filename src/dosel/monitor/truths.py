"""Labelled rows that versions in Production answered, each counted once."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, RowMapping, insert, select

from dosel.db.engine import reading
from dosel.db.migrations import migrate
from dosel.db.tables import TRUTHS
from dosel.monitor.context import Context, read_context
from dosel.monitor.coverage import Coverage, coverage
from dosel.registry.ledger import Promotion
from dosel.usecases import UseCase

Classes = npt.NDArray[np.int64]
TruthSource = Literal["batch", "feedback"]


@dataclass(frozen=True)
class Truths:
    """Labelled rows of one batch or of one call of feedback, in their order.

    Attributes:
        sequence: the ledger's entry that put the version into Production.
        reference: the batch's id, or the digest of the feedback.
        truth, answered: class codes, each of shape (rows,).
    """

    use_case: str
    model: str
    sequence: int
    version: int
    source: TruthSource
    reference: str
    at: datetime
    truth: Classes
    answered: Classes


class TruthStore:
    """Reads labelled rows. Every call may raise WarehouseError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        migrate(engine)

    def references(self, model: str, source: TruthSource) -> set[str]:
        """The references of the batches or the feedback that were added for any version of a model."""
        query = select(TRUTHS.c.reference).where(TRUTHS.c.model == model, TRUTHS.c.source == source)
        with reading(self._engine) as connection:
            return {str(reference) for reference in connection.scalars(query)}

    def coverage(self, use_case: str, entry: Promotion) -> Coverage:
        """The coverage since an entry of the ledger, of the version that the entry names."""
        with reading(self._engine) as connection:
            return coverage(connection, use_case, entry)

    def context(self, use_case: UseCase, entry: Promotion) -> Context | None:
        """What the answers since an entry of the ledger show without labels; None if that was not computed yet."""
        with reading(self._engine) as connection:
            return read_context(connection, use_case, entry)

    def of(self, model: str, sequence: int) -> Sequence[Truths]:
        """The labelled rows of one version's time in Production, in the order in which they were added."""
        query = select(TRUTHS).where(TRUTHS.c.model == model, TRUTHS.c.sequence == sequence).order_by(TRUTHS.c.id)
        with reading(self._engine) as connection:
            return [_truths(row) for row in connection.execute(query).mappings()]


def has_truths(connection: Connection, truths: Truths) -> bool:
    """Whether labelled rows of this batch or feedback were added before for the same entry."""
    c = TRUTHS.c
    same = (c.model == truths.model) & (c.sequence == truths.sequence) & (c.source == truths.source)
    query = select(c.id).where(same & (c.reference == truths.reference))
    return connection.execute(query).first() is not None


def insert_truths(connection: Connection, truths: Truths) -> None:
    """Add labelled rows.

    Raises:
        IntegrityError: this batch or feedback was added before for the same entry.
    """
    values = {
        "use_case": truths.use_case,
        "model": truths.model,
        "sequence": truths.sequence,
        "version": truths.version,
        "source": truths.source,
        "reference": truths.reference,
        "at": truths.at.astimezone(UTC).replace(tzinfo=None),
        "rows": len(truths.truth),
        "truth": json.dumps(truths.truth.tolist(), separators=(",", ":")),
        "answered": json.dumps(truths.answered.tolist(), separators=(",", ":")),
    }
    connection.execute(insert(TRUTHS).values(values))


def _truths(row: RowMapping) -> Truths:
    values = {field.name: row[field.name] for field in fields(Truths)}
    classes = {name: np.array(json.loads(row[name]), dtype=np.int64) for name in ("truth", "answered")}
    return Truths(**values | classes | {"at": row["at"].replace(tzinfo=UTC)})
