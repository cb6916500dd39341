"""Bodies that describe use cases: all that a form needs."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, Field, WithJsonSchema

from dosel.usecases import Feature, Number, UseCase

if TYPE_CHECKING:
    pass


Value = Annotated[int | float, WithJsonSchema({"type": "number"})]
"""A number that stays whole if it is."""


class NumberInfo(BaseModel):
    kind: Literal["number"] = "number"
    name: str
    title: str
    unit: str = Field(description="Empty for a number without one.")
    low: Value = Field(validation_alias="minimum", description="Smallest acceptable value.")
    high: Value = Field(validation_alias="maximum", description="Largest acceptable value.")
    whole: bool = Field(validation_alias="integer", description="Whether fractions are refused.")
    optional: bool = Field(description="Whether a row may do without it, as null or left out.")
    example: Value
    help: str
    expected: str = Field(description="The above in words, as errors say it.")


class ChoiceInfo(BaseModel):
    value: str
    title: str


class CategoryInfo(BaseModel):
    kind: Literal["category"] = "category"
    name: str
    title: str
    choices: list[ChoiceInfo]
    optional: bool = Field(description="Whether a row may do without it, as null or left out.")
    example: str
    help: str
    expected: str = Field(description="The choices in words, as errors say it.")


class TargetInfo(BaseModel):
    name: str
    title: str
    labels: dict[int, str] = Field(description="What each code of a prediction is called.")


class UseCaseInfo(BaseModel):
    """Everything a form needs."""

    name: str
    title: str
    summary: str
    default: bool = Field(description="Whether the bare `POST /predict` means this one.")
    path: str = Field(description="Where a row of it is predicted.")
    model_name: str = Field(description="Its registered model.")
    families: list[str] = Field(description="Families of models that `?model=` takes: the newest version of each.")
    features: list[Annotated[NumberInfo | CategoryInfo, Field(discriminator="kind")]]
    target: TargetInfo
    example: dict[str, Value | str] = Field(description="A real row, ready to be sent.")

    @classmethod
    def of(cls, use_case: UseCase, default: bool) -> "UseCaseInfo":
        return cls(
            name=use_case.name,
            title=use_case.title,
            summary=use_case.summary,
            default=default,
            path=f"/predict/{use_case.name}",
            model_name=use_case.model_name,
            families=[family.name for family in use_case.families],
            features=[_info(feature) for feature in use_case.features],
            target=TargetInfo(
                name=use_case.target.name, title=use_case.target.title, labels=dict(use_case.target.labels)
            ),
            example=use_case.example,
        )


def _info(feature: Feature) -> NumberInfo | CategoryInfo:
    info = NumberInfo if isinstance(feature, Number) else CategoryInfo
    return info.model_validate(vars(feature) | {"expected": feature.describe_expected()}, from_attributes=True)


class UseCases(BaseModel):
    use_cases: list[UseCaseInfo]
