"""Bodies of predictions."""

from pydantic import BaseModel, Field


class ModelReference(BaseModel):
    """Which model answered."""

    name: str = Field(description="The registered model.")
    version: int = Field(description="The model's version.", examples=[3])
    run_id: str = Field(description="The MLflow run that trained it.", examples=["0f9a4c1de0b94c6c8d3b7a52f1e6c0aa"])


class RowAnswer(BaseModel):
    """The answer for one row of a bulk request."""

    prediction: int = Field(description="Code of the most probable class.", examples=[2])
    label: str = Field(description="Name of that class.")
    probabilities: dict[str, float] = Field(
        description="Probability of each class that the model knows; they add up to 1."
    )


class Answer(RowAnswer):
    """The answer for one row."""

    model: ModelReference


class BatchAnswer(BaseModel):
    """The answers for the rows of a bulk request, in their order, all by one version."""

    predictions: list[RowAnswer]
    model: ModelReference
