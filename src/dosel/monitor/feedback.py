"""Stores feedback, the true classes that clients send for logged answers: a whole call or nothing, once an answer."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, Row, Select, insert, select
from sqlalchemy.exc import IntegrityError

from dosel.db.engine import transaction
from dosel.db.migrations import migrate
from dosel.db.tables import ANSWERS, FEEDBACK
from dosel.errors import TruthConflict, UnknownAnswers, WarehouseError
from dosel.monitor.feedback_rows import GivenTruth
from dosel.monitor.truths import Truths, insert_truths
from dosel.registry.ledger import CLOCK_TOLERANCE, Promotion, PromotionLedger
from dosel.usecases import UseCase

ATTEMPTS = 5

IDS_PER_QUERY = 500

_OWN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{32}")
"""The form of the ids that the API makes."""

NAMED = 10
"""At most this many rows are named in an error."""


@dataclass(frozen=True)
class Receipt:
    """The number of a call's rows by result.

    Attributes:
        accepted: their truth is new and is stored now.
        already_known: the same truth was given before.
        joined: the same truth came before, in a labelled batch.
        not_logged: rows of a bulk request that the prediction log did not keep; nothing is stored of them.
    """

    accepted: int
    already_known: int
    joined: int
    not_logged: int


class FeedbackStore:
    """Takes feedback on one use case."""

    def __init__(self, engine: Engine, use_case: UseCase, ledger: PromotionLedger) -> None:
        self._engine = engine
        self._use_case = use_case
        self._ledger = ledger
        migrate(engine)

    def add(self, given: Sequence[GivenTruth]) -> Receipt:
        """Store the truth about logged answers in one transaction.

        Truth about a version that was in Production when it answered also becomes a labelled row of it.

        Raises:
            UnknownAnswers: the log has no such request, or the request had no such row; nothing is stored.
            TruthConflict: an answer has another truth already; nothing is stored.
            WarehouseError: the data store cannot be reached, or failed.
        """
        for _ in range(ATTEMPTS):
            try:
                return self._add(given)
            except IntegrityError:
                # Another call stored the truth about one of these answers meanwhile: this one finds it now.
                continue
        raise WarehouseError(f"other calls gave feedback on the same answers {ATTEMPTS} times in a row; try again")

    def _add(self, given: Sequence[GivenTruth]) -> Receipt:
        history = self._ledger.history(self._use_case.model_name)
        wanted = _without_repeats(given)
        with transaction(self._engine) as connection:
            logged = _logged(connection, self._use_case.name, {key[0] for key in wanted})
            unknown = [key for key in wanted if key[0] not in logged or key[1] > logged[key[0]].rows]
            if unknown:
                foreign = any(not _OWN_ID.fullmatch(request_id) for request_id, _ in unknown)
                hint = "; send the X-Dosel-Request-ID of the answer, not an X-Request-ID" if foreign else ""
                raise UnknownAnswers(
                    f"{self._use_case.name}: the prediction log has no {_named(unknown)}{hint}",
                    may_come=not foreign and all(request_id not in logged for request_id, _ in unknown),
                )
            found = {key: answer for key in wanted if (answer := logged[key[0]].answers.get(key[1])) is not None}
            conflicts = [key for key, a in found.items() if a.truth not in (None, wanted[key])]
            if conflicts:
                raise TruthConflict(f"another truth was given before for {_named(conflicts)}; the first one stays")
            new = sorted((answer.id, wanted[key], answer) for key, answer in found.items() if answer.truth is None)
            if new:
                self._store(connection, new, history)
        joined = sum(answer.source == "batch" for answer in found.values())
        known = len(given) - len(wanted) + len(found) - len(new) - joined
        return Receipt(len(new), known, joined, len(wanted) - len(found))

    def _store(
        self,
        connection: Connection,
        new: Sequence[tuple[int, int, Row[Any]]],
        history: Sequence[Promotion],
    ) -> None:
        now, digest = datetime.now(UTC), _digest(new)
        by_entry: dict[int | None, list[tuple[int, Row[Any]]]] = {}
        rows = []
        for answer_id, truth, answer in new:
            entry = entry_of(history, answer.model, answer.version, answer.at.replace(tzinfo=UTC))
            sequence = None if entry is None else entry.sequence
            by_entry.setdefault(sequence, []).append((truth, answer))
            rows.append(feedback_row(answer_id, answer.at, now, sequence, truth, "feedback", digest))
        connection.execute(insert(FEEDBACK), rows)
        for sequence, labelled in by_entry.items():
            if sequence is None:
                continue
            first = labelled[0][1]
            truths = np.array([truth for truth, _ in labelled], np.int64)
            answered = np.array([answer.answered for _, answer in labelled], np.int64)
            insert_truths(
                connection,
                Truths(
                    self._use_case.name, first.model, sequence, first.version, "feedback", digest, now, truths, answered
                ),
            )


def entry_of(history: Sequence[Promotion], model: str, version: int, at: datetime) -> Promotion | None:
    """The ledger's entry under which a version answered at a time; None if it was not in Production then.

    The last one before that time that names the version: a service that does not reach the registry goes on answering
    with the version that was there.
    """
    named = [entry for entry in reversed(history) if entry.model == model and entry.to_version == version]
    before = [entry for entry in named if entry.at <= at]
    # The clocks of the API and of the process that promotes may differ.
    just_after = [entry for entry in reversed(named) if at < entry.at <= at + CLOCK_TOLERANCE]
    return next(iter((*before, *just_after)), None)


def feedback_row(
    answer_id: int, answered_at: datetime, now: datetime, sequence: int | None, truth: int, source: str, reference: str
) -> dict[str, Any]:
    """A row of the table `feedback`.

    Args:
        answered_at: UTC, without a time zone, as the data store gives it.
        now: UTC, with its time zone.
    """
    at = now.replace(tzinfo=None)
    return {
        "answer_id": answer_id,
        "at": at,
        "delay": max(0.0, (at - answered_at).total_seconds()),
        "sequence": sequence,
        "truth": truth,
        "source": source,
        "reference": reference,
    }


_ANSWER = [ANSWERS.c[name] for name in ("id", "request_id", "row_no", "rows", "at", "model", "version", "answered")]


@dataclass(frozen=True)
class _Request:
    """A request in the log: its number of rows, and those that were kept, by number."""

    rows: int
    answers: dict[int, Row[Any]]


def _logged(connection: Connection, use_case: str, request_ids: set[str]) -> Mapping[str, _Request]:
    query: Select[Any] = select(*_ANSWER, FEEDBACK.c.truth, FEEDBACK.c.source).outerjoin(
        FEEDBACK, FEEDBACK.c.answer_id == ANSWERS.c.id
    )
    found: dict[str, _Request] = {}
    ordered = sorted(request_ids)
    for start in range(0, len(ordered), IDS_PER_QUERY):
        some = ANSWERS.c.request_id.in_(ordered[start : start + IDS_PER_QUERY])
        for row in connection.execute(query.where(some, ANSWERS.c.use_case == use_case)):
            found.setdefault(row.request_id, _Request(row.rows, {})).answers[row.row_no] = row
    return found


def _without_repeats(given: Sequence[GivenTruth]) -> dict[tuple[str, int], int]:
    wanted: dict[tuple[str, int], int] = {}
    for request_id, row_no, truth in given:
        if wanted.setdefault((request_id, row_no), truth) != truth:
            raise TruthConflict(f"the call gives two truths for {_named([(request_id, row_no)])}")
    return wanted


def _named(keys: Iterable[tuple[str, int]]) -> str:
    listed = list(keys)
    names = ", ".join(f"request {request_id} row {row_no}" for request_id, row_no in listed[:NAMED])
    return names + (f" and {len(listed) - NAMED:,} more" if len(listed) > NAMED else "")


def _digest(new: Sequence[tuple[int, int, Row[Any]]]) -> str:
    """SHA-256 of the rows of a call whose truth is new: no other call has the same."""
    lines = "\n".join(f"{answer.request_id}\t{answer.row_no}\t{truth}" for _, truth, answer in new)
    return hashlib.sha256(lines.encode()).hexdigest()
