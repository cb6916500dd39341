"""Bodies of explanations: the neighbours' rows are derived from the use case's declaration."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from app.schemas.answers import ModelReference
from app.schemas.rows import camel
from app.schemas.use_cases import Value
from dosel.usecases import Feature, Number, UseCase

if TYPE_CHECKING:
    from dosel.explain import Contributions as Parts
    from dosel.explain import Explanation as Found
    from dosel.explain import Neighbour as Near
    from dosel.registry.store import ModelVersion


class Position(BaseModel):
    """Where a row lies in the picture: its first two principal components."""

    x: float
    y: float


class SamplePoint(Position):
    label: str = Field(description="Its class.")


class PrincipalComponents(BaseModel):
    """The row among a sample of the training rows, by their first two principal components."""

    row: Position
    explained: tuple[float, float] = Field(
        description="Share of the training rows' variance that each component has.", examples=[(0.28, 0.19)]
    )
    sample: list[SamplePoint]


class Neighbour(SamplePoint):
    """A training row near the row, and where it lies in the picture."""

    distance: float = Field(description="Euclidean, after the model's own preprocessing.", examples=[0.41])
    prediction: int = Field(description="Code of its class.", examples=[2])


class Contribution(BaseModel):
    """What one value of the row contributed."""

    feature: str = Field(description="The field.")
    title: str = Field(description="What people call it.")
    value: Value | str | None = Field(description="What the row has there.")
    contribution: float = Field(description="Above 0 it speaks for the predicted class, below 0 against it.")
    error: float | None = Field(description="Standard error of an approximation; null if it is exact.")


class Contributions(BaseModel):
    """What led to the predicted class: `base` and all contributions add up to `output`. The largest first."""

    label: str = Field(description="The class they speak for or against.")
    method: str = Field(description="How they were found.", examples=["TreeSHAP"])
    exact: bool = Field(description="False for an approximation, which was drawn within a time budget.")
    unit: Literal["probability", "log-odds"] = Field(
        description="What adds up: the class's probability, or the score the model makes probabilities of."
    )
    base: float = Field(description="The output over training rows, of which none of the row's values is known.")
    output: float = Field(description="The output for the row.")
    draws: int | None = Field(description="Random orders an approximation was drawn from; null if it is exact.")
    seconds: float = Field(description="What it took.")
    features: list[Contribution]


class Explanation(BaseModel):
    """Why the model answers a row so."""

    prediction: int = Field(description="Code of the most probable class: what `/predict` answers.", examples=[2])
    label: str = Field(description="What that class is called.")
    probabilities: dict[str, float] = Field(description="Each class the model knows, with its probability.")
    projection: PrincipalComponents
    contributions: Contributions | None = Field(description="Null if they were not asked for.")
    model: ModelReference


def explanation_model(use_case: UseCase) -> type[Explanation]:
    """The body of an explanation for `use_case`: with the neighbours' values only where they may be shown."""
    name = camel(use_case.name)
    near: Any = Neighbour
    if use_case.expose_training_rows:
        fields: dict[str, Any] = {feature.name: _field(feature) for feature in use_case.features}
        values: Any = create_model(f"{name}Values", **fields)
        row: dict[str, Any] = {"row": Annotated[values, Field(description="Its values.")]}
        near = create_model(f"{name}Neighbour", __base__=Neighbour, __doc__=Neighbour.__doc__, **row)
    listed: dict[str, Any] = {
        "neighbours": Annotated[list[near], Field(description="The nearest training rows, nearest first.")]
    }
    return create_model(f"{name}Explanation", __base__=Explanation, __doc__=Explanation.__doc__, **listed)


def explained(
    body: type[Explanation], use_case: UseCase, version: "ModelVersion", row: Mapping[str, Any], found: "Found"
) -> Explanation:
    """The body of an answer."""
    labels = use_case.target.labels
    projection = found.projection
    return body.model_validate(
        {
            "prediction": found.prediction.prediction,
            "label": found.prediction.label,
            "probabilities": found.prediction.probabilities,
            "neighbours": [
                _neighbour(n, labels) | ({"row": values} if use_case.expose_training_rows else {})
                for n, values in zip(found.neighbours, found.rows or [{}] * len(found.neighbours), strict=True)
            ],
            "projection": {
                "row": {"x": projection.row[0], "y": projection.row[1]},
                "explained": projection.explained,
                "sample": [{"x": p.x, "y": p.y, "label": labels[p.code]} for p in projection.sample],
            },
            "contributions": found.contributions
            and _contributions(use_case, found.contributions, row, found.prediction.label),
            "model": {"name": version.name, "version": version.version, "run_id": version.run_id},
        }
    )


def _neighbour(near: "Near", labels: Mapping[int, str]) -> dict[str, Any]:
    point = near.point
    return {
        "distance": near.distance,
        "prediction": point.code,
        "label": labels[point.code],
        "x": point.x,
        "y": point.y,
    }


def _contributions(use_case: UseCase, found: "Parts", row: Mapping[str, Any], label: str) -> dict[str, Any]:
    titles = {feature.name: feature.title for feature in use_case.features}
    return {
        "label": label,
        "method": found.method,
        "exact": found.exact,
        "unit": found.unit,
        "base": found.base,
        "output": found.output,
        "draws": found.draws,
        "seconds": found.seconds,
        "features": [
            {
                "feature": c.feature,
                "title": titles[c.feature],
                "value": row[c.feature],
                "contribution": c.contribution,
                "error": c.error,
            }
            for c in found.features
        ],
    }


def _field(feature: Feature) -> Any:
    kind: Any = Value if isinstance(feature, Number) else str
    unit = f" In {feature.unit}." if isinstance(feature, Number) and feature.unit else ""
    return Annotated[kind | None, Field(title=feature.title, description=feature.help + unit)]
