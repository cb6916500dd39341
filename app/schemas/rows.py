"""Only describes rows for the OpenAPI document; `dosel.rows` reads and validates them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from dosel.usecases import Category, Feature, Number, UseCase

MANY = 10
"""Most choices that the description of a field lists with their titles."""


class Row(BaseModel):
    """A row of features: the base of every use case's request."""

    model_config = ConfigDict(extra="forbid")


def row_model(use_case: UseCase) -> type[Row]:
    """The request body for one row of `use_case`."""
    fields: dict[str, Any] = {feature.name: _field(feature) for feature in use_case.features}
    return create_model(
        f"{camel(use_case.name)}Row",
        __base__=Row,
        __doc__=use_case.summary,
        __cls_kwargs__={"json_schema_extra": {"examples": [use_case.example]}},
        **fields,
    )


def request_model(use_case: UseCase) -> type[Row]:
    """The same row, with the name of a model beside its fields."""
    named = Annotated[
        str | None,
        Field(
            description="A family of the use case; or the registered model, for the version in Production, which "
            "also answers if the field is left out, null or empty."
        ),
    ]
    model: dict[str, Any] = {"model": (named, None)}
    return create_model(f"{camel(use_case.name)}Request", __base__=row_model(use_case), __doc__=None, **model)


def _field(feature: Feature) -> Any:
    sentence = feature.describe_expected()[0].upper() + feature.describe_expected()[1:]
    match feature:
        case Number():
            whole: dict[str, Any] = {"multiple_of": 1, "json_schema_extra": {"type": "integer"}}
            bounds = Field(ge=feature.minimum, le=feature.maximum, **(whole if feature.integer else {}))
            value: Any = Annotated[float, bounds]
            described = f"{feature.help} {sentence}."
        case Category():
            value = Annotated[str, Field(json_schema_extra={"enum": list(feature.values)})]
            described = f"{feature.help} {_choices(feature)} Upper or lower case is the same."
    shown = Field(title=feature.title, description=described, examples=[feature.example])
    return (Annotated[value | None, shown], None) if feature.optional else Annotated[value, shown]


def _choices(category: Category) -> str:
    if len(category.choices) > MANY:
        return f"{len(category.choices)} choices; `GET /use-cases` has the title of each."
    return (
        "; ".join(f"`{c.value}`: {c.title}" if c.title != c.value else f"`{c.value}`" for c in category.choices) + "."
    )


def camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
