"""Bodies of explanations. The neighbours' rows are derived from the use case's declaration."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from app.schemas.answers import ModelReference, RowAnswer
from app.schemas.rows import camel
from app.schemas.use_cases import Value
from dosel.usecases import Feature, Number, UseCase

if TYPE_CHECKING:
    from dosel.explain import Contributions as Parts
    from dosel.explain import Explanation as Found
    from dosel.explain import Point
    from dosel.registry.store import ModelVersion


class Position(BaseModel):
    """The coordinates of a row along the first two principal components."""

    x: float
    y: float


class SamplePoint(Position):
    label: str = Field(description="The training row's class.")


class PrincipalComponents(BaseModel):
    """The coordinates of the row and of a sample of training rows along the first two principal components."""

    row: Position
    explained: tuple[float, float] = Field(
        description="Each component's share of the training rows' variance.", examples=[(0.28, 0.19)]
    )
    sample: list[SamplePoint]


class Neighbour(SamplePoint):
    """A near training row, with its coordinates along the first two principal components."""

    distance: float = Field(description="Euclidean distance after the model's preprocessing.", examples=[0.41])
    prediction: int = Field(description="Code of the training row's class.", examples=[2])


class Contribution(BaseModel):
    """The contribution of one value of the row."""

    feature: str = Field(description="Name of the feature.")
    title: str = Field(description="Title of the feature.")
    value: Value | str | None = Field(description="The row's value.")
    contribution: float = Field(description="Above 0 it supports the predicted class, below 0 it opposes it.")
    error: float | None = Field(description="Standard error of an approximation; null if exact.")


class Contributions(BaseModel):
    """Contributions to the predicted class's probability, the largest first; with `base` they add up to `output`."""

    label: str = Field(description="The predicted class.")
    method: str = Field(description="The method of computation.", examples=["TreeSHAP"])
    exact: bool = Field(description="False for an approximation within a time budget.")
    unit: Literal["probability"] = Field("probability", description="What adds up: the class's probability.")
    base: float = Field(description="The class's mean probability over training rows.")
    output: float = Field(description="The class's probability for the row, as the answer has it.")
    draws: int | None = Field(description="Number of random permutations in an approximation; null if exact.")
    seconds: float = Field(description="Duration of the computation.")
    features: list[Contribution]


class UnusualInfo(BaseModel):
    """What is unlike the training rows."""

    feature: str | None = Field(description="Name of the feature; null if the whole row is meant.")
    message: str = Field(examples=["Sleep 1 h: training rows have 3.7 to 9 h"])


class Explanation(RowAnswer):
    """The explanation of an answer."""

    warnings: list[UnusualInfo] = Field(
        description="Values outside those of the training rows, and whether the row is far from them."
    )
    contributions: Contributions | None = Field(
        description="Null if the request disabled them, or if a closed use case has too few training rows."
    )
    model: ModelReference


NEAR, STEP = 50, 10
"""For closed use cases: how many nearest rows are counted, and the step to which counts are rounded."""


class NearClass(BaseModel):
    """A class among the nearest training rows."""

    label: str
    share: float = Field(description=f"Its share of the {NEAR} nearest training rows, in steps of {STEP / NEAR:g}.")


class ClosedExplanation(Explanation):
    """The explanation for a closed use case, which does not expose its training rows: no distances, coordinates or
    neighbours."""

    near_classes: list[NearClass] = Field(description="The classes of the nearest training rows, most frequent first.")


def explanation_model(use_case: UseCase) -> type[Explanation]:
    """The body of an explanation; for a closed use case, it has no neighbours and no coordinates."""
    if not use_case.expose_training_rows:
        return ClosedExplanation
    name = camel(use_case.name)
    fields: dict[str, Any] = {feature.name: _field(feature) for feature in use_case.features}
    values: Any = create_model(f"{name}Values", **fields)
    row: dict[str, Any] = {"row": Annotated[values, Field(description="Its values.")]}
    near: Any = create_model(f"{name}Neighbour", __base__=Neighbour, __doc__=Neighbour.__doc__, **row)
    listed: dict[str, Any] = {
        "neighbours": Annotated[list[near], Field(description="The nearest training rows, nearest first.")],
        "projection": PrincipalComponents,
    }
    return create_model(f"{name}Explanation", __base__=Explanation, __doc__=Explanation.__doc__, **listed)


def explained(
    body: type[Explanation], use_case: UseCase, version: "ModelVersion", row: Mapping[str, Any], found: "Found"
) -> Explanation:
    """The body of an answer."""
    shown = _rows_shown(use_case, found) if use_case.expose_training_rows else _rows_counted(use_case, found)
    return body.model_validate(
        {
            **asdict(found.prediction),
            **shown,
            "warnings": found.warnings,
            "contributions": found.contributions
            and _contributions(use_case, found.contributions, row, found.prediction.label),
            "model": version,
        },
        from_attributes=True,
    )


def _rows_shown(use_case: UseCase, found: "Found") -> dict[str, Any]:
    labels, projection = use_case.target.labels, found.projection
    x, y = projection.row
    return {
        "neighbours": [
            _point(n.point, labels) | {"distance": n.distance, "prediction": n.point.code, "row": values}
            for n, values in zip(found.neighbours, found.rows, strict=True)
        ],
        "projection": {
            "row": {"x": x, "y": y},
            "explained": projection.explained,
            "sample": [_point(p, labels) for p in projection.sample],
        },
    }


def _rows_counted(use_case: UseCase, found: "Found") -> dict[str, Any]:
    """What a closed use case says of its rows. Exact counts or distances would give rows away, row by row."""
    counts = Counter(neighbour.point.code for neighbour in found.neighbours)
    rounded = {use_case.target.labels[code]: round(count / STEP) * STEP / NEAR for code, count in counts.most_common()}
    return {"near_classes": [{"label": label, "share": share} for label, share in rounded.items() if share]}


def _point(point: "Point", labels: Mapping[int, str]) -> dict[str, Any]:
    return {"x": point.x, "y": point.y, "label": labels[point.code]}


def _contributions(use_case: UseCase, found: "Parts", row: Mapping[str, Any], label: str) -> dict[str, Any]:
    titles = {feature.name: feature.title for feature in use_case.features}
    features = [vars(c) | {"title": titles[c.feature], "value": row[c.feature]} for c in found.features]
    if use_case.expose_training_rows:
        return vars(found) | {"label": label, "features": features}

    def rounded(figure: float | None) -> float | None:
        return None if figure is None else round(figure, use_case.decimals)

    # As the answer's own probability; `base` still adds up with the others to `output`.
    output = round(found.output, use_case.decimals)
    features = [c | {name: rounded(c[name]) for name in ("contribution", "error")} for c in features]
    base = round(output - sum(c["contribution"] for c in features), use_case.decimals)
    return vars(found) | {"label": label, "features": features, "base": base, "output": output}


def _field(feature: Feature) -> Any:
    kind: Any = Value if isinstance(feature, Number) else str
    unit = f" In {feature.unit}." if isinstance(feature, Number) and feature.unit else ""
    return Annotated[kind | None, Field(title=feature.title, description=feature.help + unit)]
