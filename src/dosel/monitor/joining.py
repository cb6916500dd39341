"""Joins the rows of a labelled batch to logged answers with the same features."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, Row, insert, select
from sqlalchemy.exc import IntegrityError

from dosel.db.engine import transaction
from dosel.db.tables import ANSWERS, FEEDBACK
from dosel.errors import WarehouseError
from dosel.monitor.feedback import ATTEMPTS, feedback_row
from dosel.monitor.pairs import Pairs, insert_pairs
from dosel.monitor.truths import Classes, Truths, has_truths, insert_truths
from dosel.registry.shadows import ShadowRecord

Keys = npt.NDArray[np.int64]

KEYS_PER_QUERY = 5_000


def add_batch(
    engine: Engine,
    batch: Truths,
    keys: Keys,
    in_shadow: Sequence[tuple[ShadowRecord, Classes]] = (),
    joins: bool = True,
) -> bool:
    """Add the labelled rows of a batch, and their classes as the truth about logged answers, in one transaction.

    A row whose truth a client gave before is among the version's labelled rows already, and is left out here.

    Args:
        keys: the rows' keys of their features, of shape (rows,).
        in_shadow: what each version in shadow answered, of shape (rows,).
        joins: false leaves answers and feedback alone: of a closed use case, counts and feedback would otherwise tell
            clients which rows a batch has, and with which class.

    Returns:
        False if this batch was added before for the same entry of the ledger.

    Raises:
        WarehouseError: the data store cannot be reached, or failed.
    """
    for _ in range(ATTEMPTS):
        try:
            with transaction(engine) as connection:
                if has_truths(connection, batch):
                    return False
                _add(connection, batch, keys if joins else None, in_shadow)
                return True
        except IntegrityError:
            # Feedback on one of these answers, or this batch, was stored meanwhile.
            continue
    raise WarehouseError(f"feedback on rows of a batch came {ATTEMPTS} times in a row while it was stored; try again")


def _add(
    connection: Connection, batch: Truths, keys: Keys | None, in_shadow: Sequence[tuple[ShadowRecord, Classes]]
) -> None:
    if keys is None:
        insert_truths(connection, batch)
        for shadow, answered in in_shadow:
            pairs = Pairs("batch", batch.reference, batch.at, batch.truth, batch.answered, answered)
            insert_pairs(connection, shadow, pairs)
        return
    logged = _logged(connection, batch.use_case, keys)
    counted = {
        (answer.features_key, answer.truth)
        for answer in logged
        if answer.source == "feedback" and answer.sequence == batch.sequence
    }
    rows = list(zip(keys.tolist(), batch.truth.tolist(), strict=True))
    fresh = np.array([row not in counted for row in rows], np.bool_)
    truth, champion = batch.truth[fresh], batch.answered[fresh]
    insert_truths(connection, replace(batch, truth=truth, answered=champion))
    for shadow, answered in in_shadow:
        insert_pairs(connection, shadow, Pairs("batch", batch.reference, batch.at, truth, champion, answered[fresh]))
    classes: dict[int, set[int]] = {}
    for key, truth in rows:
        classes.setdefault(key, set()).add(truth)
    now = batch.at.astimezone(UTC)
    new = [
        feedback_row(answer.id, answer.at, now, None, truth, "batch", batch.reference)
        for answer in logged
        if answer.truth is None
        # Rows with the same features and different classes say nothing about this answer.
        for truth in (classes[answer.features_key] if len(classes[answer.features_key]) == 1 else ())
    ]
    if new:
        connection.execute(insert(FEEDBACK), new)


def _logged(connection: Connection, use_case: str, keys: Keys) -> Sequence[Row[Any]]:
    """The logged answers with these features, and their truth, in the order of their ids."""
    answer = (ANSWERS.c.id, ANSWERS.c.at, ANSWERS.c.features_key)
    query = (
        select(*answer, FEEDBACK.c.truth, FEEDBACK.c.source, FEEDBACK.c.sequence)
        .outerjoin_from(ANSWERS, FEEDBACK, FEEDBACK.c.answer_id == ANSWERS.c.id)
        .where(ANSWERS.c.use_case == use_case)
    )
    ordered, found = np.unique(keys), list[Any]()
    for start in range(0, len(ordered), KEYS_PER_QUERY):
        some = ordered[start : start + KEYS_PER_QUERY].tolist()
        found += connection.execute(query.where(ANSWERS.c.features_key.in_(some))).all()
    return sorted(found, key=lambda row: int(row.id))
