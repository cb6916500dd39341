"""What is known of a shadow: labels, evidence, agreement, latency, and what is missing for a decision."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import Engine, func, select

from dosel.db.engine import reading
from dosel.db.tables import ANSWERS, SHADOW_ANSWERS
from dosel.monitor.blocks import in_blocks
from dosel.monitor.canary import Draw
from dosel.monitor.comparison import CLASS_IS_WORSE, Finding, ShadowComparison, compare_arms, compare_pairs
from dosel.monitor.pairs import Arm, PairStore, joined
from dosel.registry.ledger import PromotionLedger
from dosel.registry.shadows import ShadowRecord
from dosel.usecases import Shadow, UseCase

NEWEST = 10_000
"""Agreement and latency are those of this many newest answers."""


@dataclass(frozen=True)
class Traffic:
    """The newest answers in shadow.

    Attributes:
        answers: rows that both answered so far.
        share: the share of the one-row requests since the start that a canary answered; None for a shadow.
        agreement: the share of the newest answers with the champion's class, 0 to 1; None without any.
        latency_ms, champion_latency_ms: medians; None if unknown.
    """

    answers: int
    agreement: float | None = None
    latency_ms: float | None = None
    champion_latency_ms: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class ShadowState:
    """A shadow and what live rows showed of it. `missing` says what a decision waits for."""

    shadow: ShadowRecord
    comparison: ShadowComparison
    traffic: Traffic
    missing: str

    @property
    def finding(self) -> Finding | None:
        return self.comparison.proof.finding

    @property
    def summary(self) -> str:
        """What was proven, or what is missing for a decision."""
        if self.finding is None:
            return f"waits for {self.missing}"
        return f"is proven {'worse at a class' if self.finding == CLASS_IS_WORSE else self.finding}"

    @property
    def summary_without_figures(self) -> str:
        """The summary as readers of a closed use case see it."""
        if self.finding is not None:
            return self.summary
        return f"waits for more {self.comparison.unit}, or more evidence"

    def evidence(self) -> dict[str, Any]:
        """The figures as JSON values, for the ledger."""
        return asdict(self.comparison) | {"traffic": asdict(self.traffic)}

    def document(self) -> dict[str, Any]:
        """The shadow and its figures as JSON values."""
        shadow = self.shadow
        known = {name: getattr(shadow, name) for name in ("role", "version", "champion", "number", "actor", "reason")}
        times = {"since": shadow.at.isoformat(), "until": shadow.ends_at.isoformat()}
        return known | times | {"now": self.summary, "evidence": self.evidence()}


def states(use_case: UseCase, ledger: PromotionLedger, engine: Engine, for_readers: bool = False) -> list[ShadowState]:
    """The state of each open shadow.

    Args:
        for_readers: as of `compare`.

    Raises:
        WarehouseError: the data store cannot be reached, or refused.
    """
    return [
        state_of(use_case, shadow, engine, compare(use_case, shadow, engine, for_readers))
        for shadow in ledger.open_shadows(use_case.model_name)
    ]


def compare(use_case: UseCase, shadow: ShadowRecord, engine: Engine, for_readers: bool = False) -> ShadowComparison:
    """What labelled rows show of a shadow. Those of a closed use case's batches count in whole blocks.

    Args:
        for_readers: the figures of a closed use case are without feedback, which counts for decisions only.

    Raises:
        WarehouseError: the data store cannot be reached, or refused.
    """
    rules, pairs, fall = _rules(use_case), PairStore(engine), use_case.gate.max_class_drop
    is_closed = not use_case.expose_training_rows
    if draw := Draw.of(use_case, rules, shadow):
        # A canary's labels are feedback only, which readers of a closed use case do not see.
        arms = (Arm.empty(), Arm.empty()) if for_readers and is_closed else pairs.arms(shadow, draw)
        return compare_arms(use_case.target, rules, fall, *arms)
    labelled = pairs.of(shadow)
    if is_closed:
        labelled = in_blocks(labelled, ("truth", "champion", "shadow"))
        labelled = [part for part in labelled if not for_readers or part.source == "batch"]
    truth, champion, answered = joined(labelled)
    return compare_pairs(use_case.target, rules, fall, truth, champion, answered)


def state_of(
    use_case: UseCase, shadow: ShadowRecord, engine: Engine, comparison: ShadowComparison | None = None
) -> ShadowState:
    """The state of one shadow.

    Args:
        comparison: what `compare` gave, if the caller has it.

    Raises:
        WarehouseError: the data store cannot be reached, or refused.
    """
    comparison = comparison or compare(use_case, shadow, engine)
    proof = comparison.proof
    short = _rules(use_case).min_labels - comparison.labels
    missing = ""
    if short > 0:
        missing = f"{short:,} more {comparison.unit}"
    elif proof.finding is None:
        missing = (
            f"more evidence: {proof.e_value:.2g} for better, {proof.e_against:.2g} for worse; "
            f"each is proven at {proof.e_needed:.0f}"
        )
    traffic = _traffic(engine, shadow)
    if is_canary(use_case, shadow):
        traffic = replace(traffic, share=_share(engine, shadow))
    return ShadowState(shadow, comparison, traffic, missing)


def is_canary(use_case: UseCase, shadow: ShadowRecord) -> bool:
    """Whether clients get answers of a shadow."""
    return Draw.of(use_case, _rules(use_case), shadow) is not None


def _rules(use_case: UseCase) -> Shadow:
    """The declared rules, or the defaults: a shadow may outlive its declaration, or the setting of a process."""
    return use_case.gate.shadow or Shadow()


def expired(shadow: ShadowRecord) -> bool:
    """Whether a shadow's deadline has passed."""
    return datetime.now(UTC) >= shadow.ends_at


def _traffic(engine: Engine, shadow: ShadowRecord) -> Traffic:
    mine, answers = SHADOW_ANSWERS.c, ANSWERS.c
    of_shadow = (mine.model == shadow.model) & (mine.number == shadow.number)
    logged = (answers.request_id == mine.request_id) & (answers.row_no == mine.row_no)
    newest = (
        select(mine.answered, answers.answered.label("champion"), mine.latency, mine.champion_latency)
        .join_from(SHADOW_ANSWERS, ANSWERS, logged, isouter=True)
        .where(of_shadow)
        .order_by(mine.id.desc())
        .limit(NEWEST)
    )
    with reading(engine) as connection:
        rows = connection.execute(newest).all()
        count = connection.scalar(select(func.count()).select_from(SHADOW_ANSWERS).where(of_shadow)) or 0
    agreed = [row.answered == row.champion for row in rows if row.champion is not None]
    return Traffic(
        count,
        sum(agreed) / len(agreed) if agreed else None,
        _median([row.latency for row in rows]),
        _median([row.champion_latency for row in rows if row.champion_latency is not None]),
    )


def _share(engine: Engine, shadow: ShadowRecord) -> float:
    """The share of the one-row requests that the challenger answered; 0 without any."""
    c = ANSWERS.c
    since = (c.model == shadow.model) & (c.at >= shadow.at.replace(tzinfo=None)) & (c.rows == 1)
    query = select(c.version, func.count()).where(since).group_by(c.version)
    with reading(engine) as connection:
        counts: dict[int, int] = dict(connection.execute(query).tuples().all())
    mine, others = (counts.get(version, 0) for version in (shadow.version, shadow.champion))
    return mine / max(mine + others, 1)


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None
