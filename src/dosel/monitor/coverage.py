"""The share of answers whose true class became known, and the delay."""

from dataclasses import dataclass
from math import ceil

from sqlalchemy import Connection, func, select

from dosel.db.tables import ANSWERS, FEEDBACK
from dosel.registry.ledger import Promotion
from dosel.wording import duration


@dataclass(frozen=True)
class Coverage:
    """The truth about the logged answers of one version's time in Production.

    Attributes:
        share: labelled answers among all; None without answers.
        delay_median, delay_p90: seconds from an answer to its truth; None without truth.
    """

    answers: int
    labelled: int
    share: float | None
    delay_median: float | None
    delay_p90: float | None

    def __str__(self) -> str:
        if self.share is None:
            return "no answer of this version was logged since it entered Production"
        text = f"the true class is known for {self.labelled:,} of {self.answers:,} logged answers ({self.share:.1%})"
        if self.delay_median is None or self.delay_p90 is None:
            return text
        return f"{text}, after {duration(self.delay_median)} (median) and {duration(self.delay_p90)} (90 %)"


def coverage(connection: Connection, use_case: str, entry: Promotion) -> Coverage:
    """The coverage since an entry of the ledger, of the version that it names."""
    since = entry.at.replace(tzinfo=None)
    mine = (
        (ANSWERS.c.use_case == use_case)
        & (ANSWERS.c.at >= since)
        & (ANSWERS.c.model == entry.model)
        & (ANSWERS.c.version == entry.to_version)
    )
    answers = connection.scalar(select(func.count()).select_from(ANSWERS).where(mine)) or 0
    with_truth = ANSWERS.join(FEEDBACK, FEEDBACK.c.answer_id == ANSWERS.c.id)
    labelled = connection.scalar(select(func.count()).select_from(with_truth).where(mine)) or 0

    def delay(share: float) -> float | None:
        """The quantile of the delays for this share."""
        if not labelled:
            return None
        query = select(FEEDBACK.c.delay).select_from(with_truth).where(mine).order_by(FEEDBACK.c.delay)
        return connection.scalar(query.offset(ceil(share * labelled) - 1).limit(1))

    return Coverage(answers, labelled, labelled / answers if answers else None, delay(0.5), delay(0.9))
