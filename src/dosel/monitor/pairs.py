"""Labelled rows that the champion and a version in shadow both answered, each counted once."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from dosel.db.engine import reading, transaction
from dosel.db.migrations import migrate
from dosel.db.tables import ANSWERS, FEEDBACK, SHADOW_ANSWERS, SHADOW_TRUTHS
from dosel.monitor.canary import Draw, first_of_each
from dosel.monitor.truths import Classes, TruthSource
from dosel.registry.shadows import ShadowRecord

IDS_PER_QUERY = 500


@dataclass(frozen=True)
class Pairs:
    """Labelled rows of one batch, or of feedback, in their order.

    Attributes:
        reference: the batch's id, or the digest of the answers.
        truth, champion, shadow: class codes, each of shape (rows,).
    """

    source: TruthSource
    reference: str
    at: datetime
    truth: Classes
    champion: Classes
    shadow: Classes


@dataclass(frozen=True)
class Arm:
    """Labelled rows that one version answered to clients, one for each value; class codes, each of shape (rows,)."""

    truth: Classes
    answered: Classes

    @classmethod
    def empty(cls) -> "Arm":
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))


class PairStore:
    """Reads and collects labelled rows. Every call may raise WarehouseError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        migrate(engine)

    def of(self, shadow: ShadowRecord) -> list[Pairs]:
        """The labelled rows of a shadow, in the order in which they were added."""
        c = SHADOW_TRUTHS.c
        query = select(SHADOW_TRUTHS).where(c.model == shadow.model, c.number == shadow.number).order_by(c.id)
        with reading(self._engine) as connection:
            return [
                Pairs(
                    row.source,
                    row.reference,
                    row.at.replace(tzinfo=UTC),
                    *(np.array(json.loads(text), np.int64) for text in (row.truth, row.champion, row.shadow)),
                )
                for row in connection.execute(query)
            ]

    def arms(self, shadow: ShadowRecord, draw: Draw) -> tuple[Arm, Arm]:
        """The labelled answers of a canary and of its champion since the shadow began: the first of each value.

        Bulk requests are left out, since the champion answers all of them.
        """
        c = ANSWERS.c
        value = func.json_extract(c.features, f'$."{draw.feature.name}"')
        if self._engine.dialect.name == "sqlite":
            value = func.json_quote(value)
        query = (
            select(FEEDBACK.c.truth, c.answered, c.version, value)
            .join_from(ANSWERS, FEEDBACK, FEEDBACK.c.answer_id == c.id)
            .where(
                c.model == shadow.model,
                c.at >= shadow.at.replace(tzinfo=None),
                c.version.in_((shadow.version, shadow.champion)),
                c.rows == 1,
                FEEDBACK.c.source == "feedback",
            )
            .order_by(FEEDBACK.c.id)
        )
        with reading(self._engine) as connection:
            rows = (
                (None if text is None else draw.logged(json.loads(text)), version, (truth, answered))
                for truth, answered, version, text in connection.execute(query)
            )
            arms = first_of_each(rows, draw, shadow.version, shadow.champion)
        canary, champion = (Arm(*np.array(arm, np.int64).reshape(-1, 2).T) for arm in arms)
        return canary, champion

    def collect(self, shadow: ShadowRecord) -> int:
        """Add the feedback on answers that the shadow gave, too; return the number of rows that are new.

        Each answer is marked in the same transaction, so that it counts once, also if two processes collect it.
        """
        try:
            with transaction(self._engine) as connection:
                return _collect(connection, shadow)
        except (_TakenMeanwhile, IntegrityError):
            # Another process collects the same answers at this moment.
            return 0


class _TakenMeanwhile(Exception):
    """Another process has marked one of the answers; nothing of this transaction stays."""


def insert_pairs(connection: Connection, shadow: ShadowRecord, pairs: Pairs) -> None:
    """Add labelled rows.

    Raises:
        IntegrityError: this batch or feedback was added before.
    """
    lists = {
        name: json.dumps(getattr(pairs, name).tolist(), separators=(",", ":"))
        for name in ("truth", "champion", "shadow")
    }
    values = {
        "model": shadow.model,
        "number": shadow.number,
        "source": pairs.source,
        "reference": pairs.reference,
        "at": pairs.at.astimezone(UTC).replace(tzinfo=None),
        "rows": len(pairs.truth),
    }
    connection.execute(insert(SHADOW_TRUTHS).values(values | lists))


def _collect(connection: Connection, shadow: ShadowRecord) -> int:
    mine, answers = SHADOW_ANSWERS.c, ANSWERS.c
    logged = (answers.request_id == mine.request_id) & (answers.row_no == mine.row_no)
    query = (
        select(mine.id, FEEDBACK.c.truth, answers.answered.label("champion"), mine.answered.label("shadow"))
        .join_from(SHADOW_ANSWERS, ANSWERS, logged)
        .join(FEEDBACK, FEEDBACK.c.answer_id == answers.id)
        .where(
            mine.model == shadow.model,
            mine.number == shadow.number,
            mine.counted.is_(None),
            # A row of a batch is counted with its batch.
            FEEDBACK.c.source == "feedback",
            answers.model == shadow.model,
            answers.version == shadow.champion,
        )
        .order_by(FEEDBACK.c.id)
    )
    rows = connection.execute(query).all()
    if not rows:
        return 0
    ids = [row.id for row in rows]
    reference = hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()
    for start in range(0, len(ids), IDS_PER_QUERY):
        some = ids[start : start + IDS_PER_QUERY]
        free = mine.id.in_(some) & mine.counted.is_(None)
        if connection.execute(update(SHADOW_ANSWERS).where(free).values(counted=reference)).rowcount != len(some):
            raise _TakenMeanwhile
    columns = ([row[place] for row in rows] for place in (1, 2, 3))
    truth, champion, answered = (np.array(column, np.int64) for column in columns)
    insert_pairs(connection, shadow, Pairs("feedback", reference, datetime.now(UTC), truth, champion, answered))
    return len(rows)


def joined(parts: Sequence[Pairs]) -> tuple[Classes, Classes, Classes]:
    """Truth, champion's and shadow's classes of all rows, each of shape (rows,)."""
    if not parts:
        empty = np.empty(0, np.int64)
        return empty, empty, empty
    truth, champion, shadow = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("truth", "champion", "shadow")
    )
    return truth, champion, shadow
