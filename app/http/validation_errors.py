"""Validation errors as problem documents list them."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, Field

from dosel.rows.shortened import cut
from dosel.rows.validation import InvalidValue, describe

LISTED = 20
"""At most this many fields are named; a body can have any number of wrong ones."""


class FieldError(BaseModel):
    """One invalid field."""

    field: str | None = Field(description="The field; null if the body as a whole is meant.")
    expected: str = Field(description="What would be acceptable.")
    got: str = Field(description="What was received, as JSON and cut short; in words if it was no single value.")
    message: str = Field(description="The above as one sentence.")

    @classmethod
    def of(cls, error: InvalidValue) -> Self:
        return cls.model_validate(error, from_attributes=True)


class RowError(FieldError):
    """One invalid field of one row of a bulk request."""

    row: int | None = Field(None, description="The row, counted from 1; null if the body or the query is meant.")


def of_parameters(errors: Sequence[Mapping[str, Any]]) -> list[InvalidValue]:
    """Pydantic's errors about the parameters and fields of calls that take no row."""
    return [_of_parameter(error) for error in errors]


def _of_parameter(error: Mapping[str, Any]) -> InvalidValue:
    location = error["loc"][1:]
    field = cut(str(location[0])) if location else None
    if field is None:
        expected = "a JSON object"
    elif error["type"] == "extra_forbidden":
        expected = "no field of this name"
    elif error["type"] == "missing":
        expected = "a value"
    else:
        expected = str(error["msg"]).removeprefix("Input should be ")
    return InvalidValue(field, expected, "nothing" if error["type"] == "missing" else describe(error["input"]))
