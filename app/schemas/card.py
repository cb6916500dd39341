"""The body of a model card."""

from datetime import datetime

from pydantic import BaseModel, Field


class InputInfo(BaseModel):
    """A feature of the model."""

    name: str
    title: str
    expected: str = Field(description="The accepted values.")
    optional: bool = Field(description="Whether the value may be missing.")


class FigureInfo(BaseModel):
    """A figure on held-out rows, 0 to 1."""

    name: str
    slice: str = Field(description="Of which rows: a class, or a value of a declared group; empty for all.")
    rows: int | None = Field(description="The number of rows; null if withheld or not known.")
    value: float | None = Field(description="Null if withheld, since the rows are few.")
    low: float | None
    high: float | None


class RuleResultInfo(BaseModel):
    """One rule of the gate."""

    name: str
    holds: bool
    words: str


class CardInfo(BaseModel):
    """A version's model card, generated from the declaration, the manifest and the gate's verdict."""

    model: str
    version: int
    created_at: datetime
    title: str
    summary: str
    target: str
    classes: list[str]
    inputs: list[InputInfo]
    source: str = Field(description="Where the rows come from.")
    confidence: float = Field(description="Of the figures' intervals.")
    figures: list[FigureInfo]
    limits: list[str]
    gate: str | None = Field(description="The gate's decision; null if it has not judged.")
    rules: list[RuleResultInfo]
    lineage: dict[str, str] = Field(description="Run, rows, code, parameters and digests, as far as they are known.")
    files: dict[str, str] = Field(description="SHA-256 by path.")
