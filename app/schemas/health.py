"""Bodies that describe the health of the version in Production."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

State = Literal["unknown", "as promised", "harmed"]


class _Described(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class TallyInfo(_Described):
    """Correct answers among labelled rows."""

    correct: int
    total: int

    @computed_field(description="Their share; null without rows.")  # type: ignore[prop-decorator]
    @property
    def rate(self) -> float | None:
        return self.correct / self.total if self.total else None


class FindingInfo(_Described):
    """One metric of the version in Production."""

    name: str = Field(description="`accuracy`, or `recall of` a class.", examples=["accuracy"])
    state: State
    promised: TallyInfo | None = Field(description="On the gate's held-out rows; null if the gate recorded no counts.")
    live: TallyInfo = Field(description="On labelled live rows.")
    low: float = Field(description="Lower bound of the live rate, valid at every look.")
    high: float = Field(description="Upper bound of the live rate, valid at every look.")
    log_evidence: float = Field(description="Logarithm of the evidence that the live rate is lower than promised.")
    log_needed: float = Field(description="Logarithm of the evidence that proves harm.")
    harmed_at: int | None = Field(description="Labelled rows of this metric when harm was proven.")


class PointInfo(_Described):
    """The accuracy after a batch or a call of feedback, with bounds that are valid at every look."""

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


class HealthInfo(_Described):
    """Whether the version in Production is still as good as the gate found on the held-out rows."""

    use_case: str
    model: str
    version: int
    sequence: int = Field(description="The ledger's entry that put the version into Production.")
    since: datetime
    state: State = Field(
        description="`unknown`: too few labels. `as promised`: the accuracy's lower bound is close to the held-out "
        "figure. `harmed`: a metric is proven to be lower; this stays until another version is in Production."
    )
    labels: int = Field(description="Labelled live rows that this version answered.")
    harmed_since: datetime | None
    findings: list[FindingInfo]
    coverage: CoverageInfo
    course: list[PointInfo] = Field(description="The accuracy over time.")
