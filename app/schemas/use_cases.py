"""Bodies that describe use cases: all that a form needs."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, WithJsonSchema

from dosel.usecases import Feature, Number, UseCase

Value = Annotated[int | float, WithJsonSchema({"type": "number"})]
"""A number that keeps its type: integers stay integers."""


ALIASES = "Other names of its column in a CSV."


class NumberInfo(BaseModel):
    kind: Literal["number"] = "number"
    name: str
    aliases: list[str] = Field(description=ALIASES)
    title: str
    unit: str = Field(description="Empty for a number without a unit.")
    low: Value = Field(validation_alias="minimum", description="Smallest valid value.")
    high: Value = Field(validation_alias="maximum", description="Largest valid value.")
    whole: bool = Field(validation_alias="integer", description="True if the value must be a whole number.")
    optional: bool = Field(description="True if the value may be missing: null or left out.")
    example: Value
    help: str
    expected: str = Field(description="Description of the valid values, as in error messages.")


class ChoiceInfo(BaseModel):
    value: str
    title: str


class CategoryInfo(BaseModel):
    kind: Literal["category"] = "category"
    name: str
    aliases: list[str] = Field(description=ALIASES)
    title: str
    choices: list[ChoiceInfo]
    optional: bool = Field(description="True if the value may be missing: null or left out.")
    example: str
    help: str
    expected: str = Field(description="Description of the valid values, as in error messages.")


class TargetInfo(BaseModel):
    name: str
    title: str
    labels: dict[int, str] = Field(description="Name of each class by code.")


class UseCaseInfo(BaseModel):
    """A use case, with all that a form needs."""

    name: str
    title: str
    summary: str
    default: bool = Field(description="True for the use case of `POST /predict`.")
    path: str = Field(description="Path for predictions.")
    model_name: str = Field(description="Name of the registered model.")
    families: list[str] = Field(description="Families for `?model=`, which means the newest version of the family.")
    expose_training_rows: bool = Field(
        description="False for a closed use case: no call shows its rows, and figures on live rows are coarse."
    )
    features: list[Annotated[NumberInfo | CategoryInfo, Field(discriminator="kind")]]
    target: TargetInfo
    example: dict[str, Value | str] = Field(description="A real row that can be sent as it is.")

    @classmethod
    def of(cls, use_case: UseCase, default: bool) -> "UseCaseInfo":
        derived = {
            "default": default,
            "path": f"/predict/{use_case.name}",
            "families": [family.name for family in use_case.families],
            "features": [_info(feature) for feature in use_case.features],
            "example": use_case.example,
        }
        return cls.model_validate(vars(use_case) | derived, from_attributes=True)


def _info(feature: Feature) -> NumberInfo | CategoryInfo:
    info = NumberInfo if isinstance(feature, Number) else CategoryInfo
    return info.model_validate(vars(feature) | {"expected": feature.describe_expected()}, from_attributes=True)


class UseCases(BaseModel):
    needs_key: bool = Field(description="Whether predictions need a key, in the header X-API-Key.")
    use_cases: list[UseCaseInfo]
