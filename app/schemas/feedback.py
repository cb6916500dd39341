"""Bodies of feedback."""

from pydantic import BaseModel, ConfigDict, Field


class GivenTruthInfo(BaseModel):
    """The truth about one answered row."""

    request_id: str = Field(description="The answer's header `X-Dosel-Request-ID`.", examples=["6f1c2a9be0d4-1f"])
    row: int = Field(1, ge=1, description="The row's number in a bulk prediction, from 1.")
    truth: int | str = Field(description="The class: its label, its code as in answers, or as ingest reads it.")


class ReceiptInfo(BaseModel):
    """What became of the rows of a call; the counts add up to its rows."""

    model_config = ConfigDict(from_attributes=True)

    accepted: int = Field(description="Their truth is new and is stored now.")
    already_known: int = Field(description="The same truth was given before.")
    joined: int = Field(description="The same truth came before, in a labelled batch.")
    not_logged: int = Field(description="Rows of a bulk prediction that the prediction log did not keep.")
