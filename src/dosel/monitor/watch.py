"""Follows one use case's version in Production: scores it on new batches, and judges its health."""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from dosel.model import tags
from dosel.monitor.health import Health, Point, assess
from dosel.monitor.sequential import Tally, confidence_sequence
from dosel.monitor.truths import Truths, TruthStore
from dosel.registry.ledger import Promotion
from dosel.registry.registry import Registry
from dosel.registry.store import ModelVersion
from dosel.rows import frames
from dosel.usecases import UseCase
from dosel.warehouse.batches import BatchStore

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


class Watch:
    """The watch over one use case."""

    def __init__(self, use_case: UseCase, registry: Registry, batches: BatchStore, truths: TruthStore) -> None:
        self._use_case = use_case
        self._registry = registry
        self._batches = batches
        self._truths = truths

    def score_batches(self) -> list[int]:
        """Let the version in Production answer the labelled batches that came after its training.

        Each batch is scored once for each time that a version is in Production. Rows that were refused or that were
        there before are not among a batch's clean rows, so they do not count.

        Returns:
            The ids of the batches that were scored now.

        Raises:
            UntrustedModel: the version's files are not those that were registered.
        """
        name = self._use_case.model_name
        version, entry = self._registry.production(name), self._registry.last_promotion(name)
        if version is None or entry is None:
            return []
        done = self._truths.references(name, entry.sequence, "batch")
        trained_on = _last_trained_batch(version)
        due = [r for r in self._batches.records() if r.id > trained_on and r.rows_clean and str(r.id) not in done]
        if not due:
            return []
        estimator = self._registry.load(version)
        scored = []
        for record in due:
            rows = self._batches.clean(record.id)
            if self._truths.add(self._answered(estimator, entry, str(record.id), rows)):
                scored.append(record.id)
                log.info("%s version %d was scored on batch %d", name, version.version, record.number)
        return scored

    def _answered(self, estimator: Any, entry: Promotion, reference: str, rows: "pd.DataFrame") -> Truths:
        answered = estimator.predict(frames.canonical(self._use_case, rows))
        return Truths(
            self._use_case.name,
            entry.model,
            entry.sequence,
            entry.to_version,
            "batch",
            reference,
            datetime.now(UTC),
            rows[self._use_case.target.name].to_numpy(dtype=np.int64),
            np.asarray(answered, dtype=np.int64),
        )

    def health(self) -> Health | None:
        """The health of the version in Production, by the ledger; None while there is none."""
        history = self._registry.ledger.history(self._use_case.model_name)
        return self._health(history) if history else None

    def _health(self, history: Sequence[Promotion]) -> Health:
        entry, monitor = history[-1], self._use_case.monitor
        truths = self._truths.of(entry.model, entry.sequence)
        findings, proof = assess(self._use_case.target, monitor, promised_by(history), truths, len(history))
        states = {finding.state for finding in findings}
        course = _course(truths, monitor.alpha)
        return Health(
            use_case=self._use_case.name,
            model=entry.model,
            version=entry.to_version,
            sequence=entry.sequence,
            since=entry.at,
            state="harmed" if "harmed" in states else findings[0].state,
            labels=sum(len(t.truth) for t in truths),
            findings=findings,
            harmed_since=None if proof is None else next(p.at for p in course if p.labels >= proof),
            course=course,
        )


def promised_by(history: Sequence[Promotion]) -> Mapping[int, Tally] | None:
    """What the gate found on the held-out rows for the version in Production: correct answers by class code.

    Args:
        history: the ledger's entries; the last one names the version. A rollback has its figures in an earlier entry.
    """
    now = history[-1]
    for entry in reversed(history):
        same = (entry.to_version, entry.evidence.to_run) == (now.to_version, now.evidence.to_run)
        if same and entry.evidence.gate and (counts := entry.evidence.gate.get("recalled")):
            return {int(code): Tally(correct, total) for code, (correct, total) in counts.items()}
    return None


def _course(truths: Sequence[Truths], alpha: float) -> tuple[Point, ...]:
    correct = labels = 0
    points = []
    for part in truths:
        correct += int((part.truth == part.answered).sum())
        labels += len(part.truth)
        low, high = confidence_sequence(Tally(correct, labels), alpha)
        points.append(Point(part.at, labels, correct / labels, low, high))
    return tuple(points)


def _last_trained_batch(version: ModelVersion) -> int:
    """The id of the last batch of the version's training; later rows are new to it."""
    listed = version.tags.get(tags.BATCH_IDS, "")
    return max((int(number) for number in listed.strip("[]").split(",") if number.strip().isdigit()), default=0)
