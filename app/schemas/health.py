"""Bodies that describe the health of the version in Production."""

from datetime import datetime
from math import isnan
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from dosel.closed import coarse
from dosel.usecases import UseCase

if TYPE_CHECKING:
    from dosel.monitor.health import Health

State = Literal["unknown", "as promised", "harmed"]


class _Described(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class TallyInfo(_Described):
    """Correct answers among labelled rows."""

    correct: int
    total: int
    rate: float | None = Field(None, description="Their share; null without rows.")

    @field_validator("rate")
    @classmethod
    def _null_without_rows(cls, rate: float | None) -> float | None:
        return None if rate is None or isnan(rate) else rate


class FindingInfo(_Described):
    """One metric of the version in Production."""

    name: str = Field(description="`accuracy`, or `recall of` a class.", examples=["accuracy"])
    state: State
    promised: TallyInfo | None = Field(description="On the gate's held-out rows; null if the gate recorded no counts.")
    live: TallyInfo = Field(description="On labelled live rows.")
    low: float = Field(description="Lower bound of the live rate, valid however often it is checked.")
    high: float = Field(description="Upper bound of the live rate, valid however often it is checked.")
    log_evidence: float = Field(description="Logarithm of the evidence that the live rate is lower than promised.")
    log_needed: float = Field(description="Logarithm of the evidence that proves harm.")
    harmed_at: int | None = Field(description="Labelled rows of this metric when harm was proven.")


class PointInfo(_Described):
    """The accuracy after a batch or a call of feedback, with bounds that are valid however often they are checked."""

    at: datetime
    labels: int
    accuracy: float
    low: float
    high: float


class CoverageInfo(_Described):
    """How many logged answers of this version's time in Production got truth, and how long it took."""

    answers: int = Field(description="Answers in the prediction log.")
    labelled: int = Field(description="Those that got truth, from feedback or a labelled batch.")
    share: float | None = Field(description="Their share; null without answers.")
    delay_median: float | None = Field(description="Median of the seconds from an answer to its truth.")
    delay_p90: float | None = Field(description="The seconds that 90 % of the truths did not exceed.")


class EstimateInfo(_Described):
    """The accuracy estimated from the probabilities, calibrated on held-out rows."""

    accuracy: float | None = Field(description="null if the estimate is refused.")
    low: float | None = Field(description="The accuracy of these rows is between `low` and `high` in 95 of 100 cases.")
    high: float | None
    thin: float | None = Field(description="Share of rows that are unlike the held-out rows.")
    refused: str = Field(description="Why there is no estimate; empty if there is one.")


class TwoSampleInfo(_Described):
    """A classifier two-sample test of the answered rows against training rows."""

    auc: float = Field(description="0.5 if the classifier cannot tell them apart, 1 if it always can.")
    p_value: float
    permutations: int


class FeatureChangeInfo(_Described):
    """One feature of the answered rows, beside the training rows."""

    name: str
    title: str
    kind: Literal["number", "category"]
    effect: float = Field(
        description="Number: Wasserstein distance divided by the interquartile range of the training rows. Category: "
        "Jensen-Shannon distance. If the share of missing values changed by more than this, the effect is that change."
    )
    by_chance: float = Field(description="The 95th percentile of the effect over random samples of training rows.")
    outside: float = Field(description="Share of rows with a value that no training row has.")
    change: str | None = Field(
        description="The change in the declared unit; null for a closed use case.",
        examples=["median 2,950 m → 3,120 m"],
    )


class ContextInfo(_Described):
    """What the newest answers show without labels. It never alarms, and it cannot see a concept drift.

    Shares and effects are rounded to 0.05 for a closed use case.
    """

    at: datetime = Field(description="When this was computed.")
    first: datetime
    last: datetime
    answers: int
    estimate: EstimateInfo
    two_sample: TwoSampleInfo | None
    outside: float | None = Field(description="Share of rows with a value that no training row has.")
    features: list[FeatureChangeInfo] = Field(description="The largest effect beyond chance first.")
    unknown: str = Field(description="Why the comparison with training rows is missing; empty if it is there.")


class HealthInfo(_Described):
    """Whether the version in Production is still as good as the gate found on the held-out rows."""

    use_case: str
    model: str
    version: int
    sequence: int = Field(description="The ledger's entry that put the version into Production.")
    previous: int | None = Field(description="The version that a rollback puts back; null if there is none.")
    control: int | None = Field(description="The version in shadow as control; null if there is none.")
    since: datetime
    state: State = Field(
        description="`unknown`: neither is proven yet, or the gate has not judged the version. `as promised`: the "
        "accuracy's lower bound is close to the held-out figure. `harmed`: a metric is proven to be lower; this stays "
        "until another version is in Production."
    )
    labels: int = Field(
        description="Labelled live rows that this version answered. Of a closed use case, this and the figures rest on "
        "whole blocks of 50 rows of labelled batches; feedback counts for `harmed` only."
    )
    harmed_since: datetime | None
    findings: list[FindingInfo]
    coverage: CoverageInfo
    context: ContextInfo | None = Field(description="Without labels; null until it was computed.")
    course: list[PointInfo] = Field(
        description="The accuracy over time: at most 500 points at even distances, the newest among them."
    )

    @classmethod
    def of(cls, use_case: UseCase, found: "Health") -> "HealthInfo":
        """The body of an answer; `coarse` for a closed use case."""
        made = cls.model_validate(found)
        return made if use_case.expose_training_rows else made._coarse()

    def _coarse(self) -> "HealthInfo":
        """The health as readers of a closed use case see it. Shares are rounded, not computed from rounded counts."""
        found = HealthInfo.model_validate(coarse(self.model_dump()))
        for finding, exact in zip(found.findings, self.findings, strict=True):
            if finding.promised and exact.promised and exact.promised.rate is not None:
                # Two decimals give nothing away: held-out rows do not change with each label.
                finding.promised.rate = round(exact.promised.rate, 2)
        if found.context and found.context.two_sample:
            # At least one step: rounding would show a small p-value as 0, and none is below 0.01.
            found.context.two_sample.p_value = max(found.context.two_sample.p_value, 0.05)
        return found
