"""What a request's body got wrong, field by field, in the words of the use case."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, Field

from dosel.usecases import UseCase

LISTED = 20
"""At most this many fields are named; a body can have any number of wrong ones."""

SHOWN = 60
"""Characters of what was received that are shown again."""


class FieldError(BaseModel):
    """One field that is not acceptable."""

    field: str | None = Field(description="The field; null if the body as a whole is meant.")
    expected: str = Field(description="What would be acceptable.")
    got: str = Field(description="What was received, as JSON and cut short; in words if it was no single value.")
    message: str = Field(description="The above as one sentence.")


class RowError(FieldError):
    """One field of one row of a batch that is not acceptable."""

    row: int | None = Field(description="The row, counted from 1; null if the body as a whole is meant.")

    @classmethod
    def of(cls, row: int | None, error: FieldError) -> "RowError":
        named = error.message if row is None else f"row {row}: {error.message}"
        return cls(row=row, field=error.field, expected=error.expected, got=error.got, message=named)


def refusals(errors: Sequence[Mapping[str, Any]], use_case: UseCase | None) -> list[FieldError]:
    """The first of pydantic's `errors` about a body for `use_case`."""
    return [_refusal(error, use_case) for error in errors[:LISTED]]


def cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _refusal(error: Mapping[str, Any], use_case: UseCase | None) -> FieldError:
    location = error["loc"][1:]
    field = cut(str(location[0])) if location else None
    missing = error["type"] == "missing"
    got = "nothing" if missing else shown(error["input"])
    # A parameter of the path's query is not the use case's, so it has the framework's words.
    asked = use_case if error["loc"][0] == "body" else None
    expected = _expected(field, error, asked)
    subject = f"{field}: " if field is not None else "the body: "
    return FieldError(field=field, expected=expected, got=got, message=f"{subject}expected {expected}, got {got}")


def _expected(field: str | None, error: Mapping[str, Any], use_case: UseCase | None) -> str:
    names = use_case.feature_names if use_case else ()
    if field is None:
        return f"a JSON object with the fields {', '.join(names)}" if names else "a JSON object"
    if error["type"] == "extra_forbidden":
        near = get_close_matches(field, names, n=1)
        return "no field of this name" + (f" (did you mean {near[0]}?)" if near else "")
    for feature in use_case.features if use_case else ():
        if feature.name == field:
            return feature.describe_expected()
    if use_case is None:
        return str(error["msg"]).removeprefix("Input should be ")
    # Beside its features, a request has the one field that says which model to ask.
    return "the name of a registered model, or null"


def shown(value: Any) -> str:
    match value:
        case dict():
            return f"an object with {len(value)} fields"
        case list():
            return f"a list of {len(value)} items"
        case bytes():
            return f"{len(value)} bytes"
        case str():
            return json.dumps(cut(value), ensure_ascii=False)
        case _:
            return cut(json.dumps(value))
