"""Bodies about the service itself."""

from typing import Literal

from pydantic import BaseModel, Field


class Readiness(BaseModel):
    """Whether a use case has a loaded model."""

    ready: bool
    version: int | None
    waiting_for: str | None = Field(description="What the use case is waiting for; null while it follows Production.")


class Ready(BaseModel):
    use_cases: dict[str, Readiness]
    stale: list[str] = Field(description="Use cases whose loaded version the registry could not confirm.")


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Greeting(BaseModel):
    message: str
    docs: str = Field(description="Path of the documentation.")
