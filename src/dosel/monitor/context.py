"""What can be said about the answers of the version in Production without labels.

Nothing here alarms, and nothing follows from it. The task that scores new batches computes it, so that neither the page
nor the API waits.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Connection, Engine, Row, delete, insert, select

from dosel.closed import without_figures
from dosel.db.engine import transaction
from dosel.db.migrations import migrate
from dosel.db.tables import ANSWERS, CONTEXTS
from dosel.errors import NotExplainable
from dosel.model import bundle, reference
from dosel.model.held_out import HeldOut
from dosel.monitor.drift import FeatureChange, TwoSample, changes, outside, two_sample_test
from dosel.monitor.estimate import FEWEST_ROWS, Estimate, estimate
from dosel.registry.ledger import Promotion
from dosel.registry.registry import Registry
from dosel.rows.columns import Columns, Floats
from dosel.usecases import UseCase

WINDOW = 2_000
"""Most answers in the window: the newest ones."""

TRAINING_ROWS = 5_000
"""Most training rows that a distribution is estimated from."""

TEST_SECONDS = 10.0
"""Time for the permutations of the two-sample test."""

REFRESH = timedelta(minutes=10)
"""Least time between two computations."""

COARSE = 0.05
"""Shares and effects of closed use cases are rounded to multiples of this."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """What the newest answers of one version's time in Production show without labels.

    Attributes:
        at: when this was computed.
        first, last: when the first and the last answer of the window were given; `answers` is their number.
        outside: share of the window's rows with a value that `dosel.monitor.drift.outside` marks.
        features: the largest effect beyond chance first; empty while the training rows are not known.
        unknown: why the comparison with training rows is missing; empty if it is there.
    """

    at: datetime
    first: datetime
    last: datetime
    answers: int
    estimate: Estimate
    two_sample: TwoSample | None = None
    outside: float | None = None
    features: tuple[FeatureChange, ...] = ()
    unknown: str = ""


def read_context(connection: Connection, use_case: UseCase, entry: Promotion) -> Context | None:
    """The last context of one version's time in Production; None if none was computed.

    For a closed use case, it has rounded shares and effects and no value.
    """
    c = CONTEXTS.c
    query = select(c.document).where(c.model == entry.model, c.sequence == entry.sequence)
    document = connection.scalar(query)
    try:
        found = None if document is None else msgspec.json.decode(document, type=Context)
    except msgspec.ValidationError:
        # Another dosel wrote it; the next computation replaces it.
        return None
    return found if found is None or use_case.expose_training_rows else _coarse(found)


def update_context(use_case: UseCase, registry: Registry, engine: Engine, seconds: float) -> bool:
    """Compute and store the context of the version in Production, if there are new answers; return whether it did.

    Args:
        seconds: time for the permutations of the two-sample test.

    Raises:
        WarehouseError, RegistryError: the data store or MLflow cannot be reached, or refused.
        UntrustedModel: the version's files are not those that were registered.
    """
    version, entry = registry.production(use_case.model_name), registry.last_promotion(use_case.model_name)
    if version is None or entry is None or entry.to_version != version.version:
        return False
    migrate(engine)
    with transaction(engine) as connection:
        answers = _due(connection, use_case, entry)
    if answers is None:
        return False
    with registry.files(version) as folder:
        found = _computed(use_case, folder, answers, seconds)
    values = {
        "model": entry.model,
        "sequence": entry.sequence,
        "at": found.at.replace(tzinfo=None),
        "last_answer": max(answer.id for answer in answers),
        "document": msgspec.json.encode(found).decode(),
    }
    with transaction(engine) as connection:
        c = CONTEXTS.c
        connection.execute(delete(CONTEXTS).where(c.model == entry.model, c.sequence == entry.sequence))
        connection.execute(insert(CONTEXTS).values(values))
    return True


def try_to_update_context(use_case: UseCase, registry: Registry, engine: Engine) -> None:
    """As `update_context`; a failure is only logged, since a failed task would be an alarm."""
    try:
        update_context(use_case, registry, engine, TEST_SECONDS)
    except Exception:
        log.warning("%s: the context without labels could not be computed", use_case.name, exc_info=True)


def _due(connection: Connection, use_case: UseCase, entry: Promotion) -> Sequence[Row[Any]] | None:
    """The window's answers, oldest first; None if they are too few, or if it is too early to compute again."""
    stored = connection.execute(
        select(CONTEXTS.c.at, CONTEXTS.c.last_answer).where(
            CONTEXTS.c.model == entry.model, CONTEXTS.c.sequence == entry.sequence
        )
    ).first()
    if stored is not None and datetime.now(UTC) - stored.at.replace(tzinfo=UTC) < REFRESH:
        return None
    c = ANSWERS.c
    mine = (c.use_case == use_case.name) & (c.model == entry.model) & (c.version == entry.to_version)
    query = select(c.id, c.at, c.features, c.probabilities).where(mine, c.at >= entry.at.replace(tzinfo=None))
    answers = connection.execute(query.order_by(c.at.desc(), c.id.desc()).limit(WINDOW)).all()
    newest = max((answer.id for answer in answers), default=0)
    if len(answers) < FEWEST_ROWS or (stored is not None and newest == stored.last_answer):
        return None
    return list(reversed(answers))


def _computed(use_case: UseCase, folder: Path, answers: Sequence[Row[Any]], seconds: float) -> Context:
    """The context of these answers; `folder` has the files of the version that gave them."""
    # Answers that were given before a feature was declared have no value of it.
    nothing = dict.fromkeys(use_case.feature_names)
    window = Columns.of_rows(use_case, [nothing | json.loads(answer.features) for answer in answers])
    kept = bundle.read_held_out(folder)
    held_out = None if kept is None else HeldOut.read(kept)
    first, last = (answers[place].at.replace(tzinfo=UTC) for place in (0, -1))
    training = unknown = None
    try:
        content = bundle.read_reference(folder)
        training = None if content is None else Columns.of(use_case, reference.read(use_case, content).table)
    except NotExplainable as error:
        unknown = str(error)
    is_open = use_case.expose_training_rows
    beyond = np.zeros((len(window), 1), np.bool_) if training is None else outside(training, window, is_open)
    found = Context(
        at=datetime.now(UTC),
        first=first,
        last=last,
        answers=len(answers),
        estimate=estimate(held_out, _probabilities(use_case, held_out, answers), np.logical_or.reduce(beyond, axis=1)),
    )
    if training is None:
        return replace(found, unknown=unknown or "not known: this version has no training rows; train again")
    some = _drawn(training, TRAINING_ROWS)
    return replace(
        found,
        two_sample=two_sample_test(_drawn(training, len(window)), window, seconds),
        outside=float(beyond.any(axis=1).mean()),
        features=changes(use_case, some, window, beyond),
    )


def _probabilities(use_case: UseCase, held_out: HeldOut | None, answers: Sequence[Row[Any]]) -> Floats:
    """The logged probabilities, of shape (rows, classes), in the order of the held-out ones."""
    labels: Mapping[int, str] = use_case.target.labels
    names = [labels[code] for code in (labels if held_out is None else held_out.codes.tolist())]
    logged = [json.loads(answer.probabilities) for answer in answers]
    return np.array([[given.get(name, 0.0) for name in names] for given in logged], np.float64)


def _drawn(rows: Columns, most: int) -> Columns:
    if len(rows) <= most:
        return rows
    return rows[np.random.default_rng(0).choice(len(rows), most, replace=False)]


def _coarse(context: Context) -> Context:
    """The context without values, its shares and effects rounded."""
    features = tuple(
        replace(
            feature,
            effect=_rounded(feature.effect),
            by_chance=_rounded(feature.by_chance),
            outside=_rounded(feature.outside),
            change=None,
        )
        for feature in context.features
    )
    test, beyond = context.two_sample, context.outside
    return replace(
        context,
        estimate=replace(context.estimate, refused=without_figures(context.estimate.refused)),
        features=features,
        two_sample=test and replace(test, auc=_rounded(test.auc)),
        outside=None if beyond is None else _rounded(beyond),
    )


def _rounded(value: float) -> float:
    return round(round(value / COARSE) * COARSE, 2)
