"""The body of a comparison of two versions."""

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from app.schemas.history import RuleInfo
from dosel.closed import shown
from dosel.usecases import UseCase

if TYPE_CHECKING:
    from dosel.registry.side_by_side import VersionComparison


class ShareInfo(BaseModel):
    """A figure, 0 to 1, or a difference of two."""

    value: float
    low: float | None = Field(description="The lower end of its interval; null if it has none.")
    high: float | None


class ComparedFigureInfo(BaseModel):
    """A figure of both versions on the same rows."""

    name: str = Field(examples=["recall"])
    slice: str = Field(description="Of which rows; empty for all.", examples=["class Aspen"])
    rows: int
    a: ShareInfo
    b: ShareInfo
    difference: ShareInfo = Field(description="Version b minus version a.")


class AnswerCountInfo(BaseModel):
    """The number of rows of class `truth` that version a answered with class `a`, and version b with class `b`."""

    truth: str
    a: str
    b: str
    rows: int


class ComparisonInfo(BaseModel):
    """Two versions side by side, on the held-out rows that neither was trained on."""

    model: str
    a: int = Field(description="A version.")
    b: int = Field(description="Another one.")
    rows: int = Field(description="Number of held-out rows.")
    confidence: float = Field(description="Of the intervals.")
    figures: list[ComparedFigureInfo] = Field(
        description="Overall figures, and the recall of each class; of a closed use case, without those of few rows."
    )
    both: int = Field(description="Rows that both answered correctly.")
    only_a: int
    only_b: int
    neither: int
    answers: list[AnswerCountInfo] | None = Field(
        description="Each combination of true class and both answers, most frequent first: both confusion "
        "matrices, and where they differ. Null for a closed use case."
    )
    rules: list[RuleInfo] = Field(description="The gate's rules, with version b as the challenger of version a.")

    @classmethod
    def of(cls, use_case: UseCase, found: "VersionComparison") -> "ComparisonInfo":
        made = cls.model_validate(found, from_attributes=True)
        return cls.model_validate(shown(use_case, made.model_dump()))
