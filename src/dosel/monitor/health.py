"""The health of the version in Production: whether it is still as good as the gate found.

Accuracy and each class's recall are tested after every label, with one error rate for all metrics, labels and versions
of the use case together. The state is derived from the labelled rows in their order, so that a restart finds the same
state again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from dosel.monitor.blocks import in_blocks
from dosel.monitor.context import Context
from dosel.monitor.coverage import Coverage
from dosel.monitor.sequential import (
    Tally,
    confidence_sequence,
    first_proof,
    log_evidence_of_harm,
    share_of_budget,
)
from dosel.monitor.truths import Truths, TruthStore
from dosel.registry.ledger import Promotion, PromotionLedger
from dosel.registry.rollbacks import rollback_candidates
from dosel.registry.verdicts import Verdict
from dosel.usecases import Monitor, Target, UseCase

State = Literal["unknown", "as promised", "harmed"]

ACCURACY_SHARE = 0.9
"""The part of the error rate for accuracy; the classes share the rest. Chosen by simulation."""

AS_PROMISED_MARGIN = 0.05
"""A metric is as promised once its lower bound is at most this far below the held-out figure."""


COURSE_POINTS = 500
"""Maximum number of points of `Health.course`."""


@dataclass(frozen=True)
class Finding:
    """One metric of the version in Production.

    Attributes:
        name: "accuracy", or "recall of …" with the class's label.
        promised: the held-out rows; None if the gate recorded no counts.
        live: the labelled live rows.
        low, high: bounds of the live metric, valid however often they are checked.
        log_evidence: the logarithm of the evidence of harm now; `log_needed` proves harm.
        harmed_at: labelled rows of this metric when harm was proven; it stays proven.
    """

    name: str
    promised: Tally | None
    live: Tally
    low: float
    high: float
    log_evidence: float
    log_needed: float
    harmed_at: int | None
    state: State


@dataclass(frozen=True)
class Point:
    """The accuracy after one more batch or feedback (or block, for readers of a closed use case), with its bounds."""

    at: datetime
    labels: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Health:
    """The state of one version's time in Production, and the figures behind it.

    Attributes:
        from_batches: labels of labelled batches; the others are feedback.
        previous: the version that a rollback puts back; None if there is none.
        control: the version in shadow as control; None if there is none.
        course: at most `COURSE_POINTS` points at even distances, the newest among them.
    """

    use_case: str
    model: str
    version: int
    sequence: int
    previous: int | None
    control: int | None
    since: datetime
    state: State
    labels: int
    from_batches: int
    findings: tuple[Finding, ...]
    harmed_since: datetime | None
    course: tuple[Point, ...]
    coverage: Coverage
    context: Context | None

    @property
    def harmed(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.state == "harmed")

    @property
    def remedy(self) -> str:
        """What a person can do about harm: `dosel rollback`, or `dosel train` if there is no earlier version.

        While the earlier version answers the same rows as control, `dosel shadow` says whether it is better.
        """
        if self.control is not None:
            return "dosel shadow"
        return f"dosel {'train' if self.previous is None else 'rollback'} {self.use_case}"


def health(use_case: UseCase, ledger: PromotionLedger, truths: TruthStore, for_readers: bool = False) -> Health | None:
    """The health of the version in Production, by the ledger; None while there is none.

    The rows of a closed use case's batches count in whole blocks: a single one must not change the state.

    Args:
        for_readers: the figures of a closed use case are without feedback, which counts for harm only.

    Raises:
        WarehouseError: the data store cannot be reached, or refused.
    """
    history = ledger.history(use_case.model_name)
    if not history:
        return None
    entry, alpha = history[-1], use_case.monitor.alpha
    labelled, is_closed = truths.of(entry.model, entry.sequence), not use_case.expose_training_rows
    if is_closed:
        labelled = in_blocks(labelled, ("truth", "answered"))
    promised = promised_by(history, ledger.verdicts(entry.model))
    findings, proof = assess(use_case.target, use_case.monitor, promised, labelled, len(history))
    harmed_since = None if proof is None else _times_of(labelled, [proof])[0]
    if for_readers and is_closed:
        labelled = [part for part in labelled if part.source == "batch"]
        of_batches, _ = assess(use_case.target, use_case.monitor, promised, labelled, len(history))
        findings = tuple(map(_with_harm, of_batches, findings))
    parts, earlier = _parts(labelled), rollback_candidates(history)
    return Health(
        use_case=use_case.name,
        model=entry.model,
        version=entry.to_version,
        sequence=entry.sequence,
        previous=earlier[-1].to_version if earlier else None,
        control=next((s.version for s in ledger.open_shadows(entry.model) if s.role == "control"), None),
        since=entry.at,
        state="harmed" if proof is not None else findings[0].state,
        labels=parts[-1].tally.total if parts else 0,
        from_batches=sum(len(part.truth) for part in labelled if part.source == "batch"),
        findings=findings,
        harmed_since=harmed_since,
        course=_course(parts, alpha),
        coverage=truths.coverage(use_case.name, entry),
        context=truths.context(use_case, entry),
    )


def assess(
    target: Target, monitor: Monitor, promised: Mapping[int, Tally] | None, truths: Sequence[Truths], term: int
) -> tuple[tuple[Finding, ...], int | None]:
    """Judge every metric.

    Args:
        promised: each class's correct answers among its held-out rows, by code; None if they are not known.
        truths: labelled rows of the version's time in Production, in their order.
        term: number of this term in Production among those of all versions of the model, from 1.

    Returns:
        The findings, and the number of labelled rows after which the first harm was proven.
    """
    truth = np.concatenate([t.truth for t in truths]) if truths else np.empty(0, np.int64)
    right = truth == (np.concatenate([t.answered for t in truths]) if truths else truth)
    budget = share_of_budget(monitor.alpha, term)
    whole = (
        None
        if promised is None
        else Tally(sum(t.correct for t in promised.values()), sum(t.total for t in promised.values()))
    )
    rows = np.arange(len(truth))
    metrics = [("accuracy", whole, rows, ACCURACY_SHARE * budget)]
    each = (1 - ACCURACY_SHARE) * budget / len(target.labels)
    metrics += [
        (f"recall of {label}", promised.get(code) if promised else None, rows[truth == code], each)
        for code, label in target.labels.items()
    ]
    found, proofs = [], []
    for name, tally, of_metric, alpha in metrics:
        finding = _judge(name, tally, right[of_metric], alpha)
        found.append(finding)
        if finding.harmed_at is not None:
            proofs.append(int(of_metric[finding.harmed_at - 1]) + 1)
    return tuple(found), min(proofs, default=None)


def _judge(name: str, promised: Tally | None, right: npt.NDArray[np.bool_], alpha: float) -> Finding:
    correct, total = np.cumsum(right, dtype=np.int64), np.arange(1, len(right) + 1)
    live = Tally(int(right.sum()), len(right))
    low, high = confidence_sequence(live, alpha)
    evidence, harmed_at = 0.0, None
    if promised is not None and promised.total and live.total:
        course = log_evidence_of_harm(promised, correct, total)
        evidence, proof = float(course[-1]), first_proof(course, alpha)
        harmed_at = None if proof is None else proof + 1
    state: State = "unknown"
    if harmed_at is not None:
        state = "harmed"
    elif promised is not None and promised.total and low >= promised.rate - AS_PROMISED_MARGIN:
        state = "as promised"
    return Finding(name, promised, live, low, high, evidence, float(-np.log(alpha)), harmed_at, state)


def promised_by(
    history: Sequence[Promotion], verdicts: Mapping[tuple[int, str], Verdict]
) -> Mapping[int, Tally] | None:
    """What the gate found on the held-out rows for the version in Production: correct answers by class code.

    Args:
        history: the ledger's entries; the last one names the version.
        verdicts: the gate's verdicts by version and run; a version that was promoted by hand may have one, too.
    """
    now = history[-1]
    key = (now.to_version, now.evidence.to_run)
    reports = [verdict.report for named, verdict in verdicts.items() if named == key]
    reports += [entry.evidence.gate for entry in history if (entry.to_version, entry.evidence.to_run) == key]
    for report in reports:
        if report and (counts := report.get("recalled")):
            return {int(code): Tally(correct, total) for code, (correct, total) in counts.items()}
    return None


def _times_of(truths: Sequence[Truths], labels: npt.ArrayLike) -> list[datetime]:
    """For each position among the labels, from 1: the time of the batch or feedback that brought this label."""
    places = np.searchsorted(np.cumsum([len(t.truth) for t in truths]), labels)
    return [truths[place].at for place in places.tolist()]


def _with_harm(shown: Finding, now: Finding) -> Finding:
    return replace(shown, state="harmed", harmed_at=now.harmed_at) if now.state == "harmed" else shown


@dataclass(frozen=True)
class _Part:
    """The labelled rows up to the end of one batch or call of feedback."""

    at: datetime
    tally: Tally


def _parts(truths: Sequence[Truths]) -> Sequence[_Part]:
    # A batch has no rows here if feedback gave the true class of each of them before.
    labelled = [part for part in truths if len(part.truth)]
    right = np.cumsum([int((part.truth == part.answered).sum()) for part in labelled], dtype=np.int64)
    total = np.cumsum([len(part.truth) for part in labelled], dtype=np.int64)
    return [_Part(part.at, Tally(int(c), int(n))) for part, c, n in zip(labelled, right, total, strict=True)]


def _course(parts: Sequence[_Part], alpha: float) -> tuple[Point, ...]:
    step = -(-len(parts) // (COURSE_POINTS - 1)) or 1
    # Counted from the oldest, so that later calls show the same points again, whose bounds are known.
    shown = [*parts[:-1:step], *parts[-1:]]
    return tuple(Point(part.at, part.tally.total, part.tally.rate, *_bounds(part.tally, alpha)) for part in shown)


@lru_cache(4_096)
def _bounds(tally: Tally, alpha: float) -> tuple[float, float]:
    """The bounds of a point; cached, since each takes 0.1 ms and an answer has hundreds."""
    return confidence_sequence(tally, alpha)
