"""Bodies of feedback."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dosel.monitor.feedback_rows import ID_PATTERN, MAX_ROW_NUMBER, MAX_ROWS
from dosel.usecases import Target


class GivenTruthInfo(BaseModel):
    """The truth about one answered row."""

    model_config = ConfigDict(extra="forbid")

    request_id: str = Field(
        pattern=ID_PATTERN,
        description="The answer's header `X-Dosel-Request-ID`.",
        examples=["6f1c2a9b-415f9a7703be7cc1d2f8e03b5a6c9d17"],
    )
    row: int = Field(1, ge=1, le=MAX_ROW_NUMBER, description="The row's number in a bulk request, from 1.")
    truth: int | str = Field(
        description="The class: its label, a declared spelling, or its code in answers; a number, for ranges."
    )


def truths_schema(target: Target) -> dict[str, Any]:
    """The JSON Schema of the body of a call: a list of `GivenTruthInfo` with classes of this target."""
    item = GivenTruthInfo.model_json_schema()
    words = {"type": "string", "enum": sorted({*target.labels.values(), *target.spellings})}
    number: dict[str, Any] = {"type": "integer", "enum": list(target.labels)}
    if target.bins:
        number = {"type": "number", "minimum": target.bins.minimum, "maximum": target.bins.maximum}
    item["properties"]["truth"]["anyOf"] = [number, words]
    return {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_ROWS}


class ReceiptInfo(BaseModel):
    """What became of the rows of a call; the counts add up to its rows."""

    model_config = ConfigDict(from_attributes=True)

    accepted: int = Field(description="Rows whose truth is new, and now stored.")
    already_known: int = Field(description="The same truth was given before.")
    joined: int = Field(description="The same truth came before, in a labelled batch; not for a closed use case.")
    not_logged: int = Field(description="Rows of a bulk request that the prediction log did not keep.")
