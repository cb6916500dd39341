"""Bodies about the service itself."""

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    pass


class Readiness(BaseModel):
    """Whether one use case has a model that answers."""

    ready: bool
    version: int | None
    waiting_for: str | None = Field(description="What keeps it from following Production; null while it does.")


class Ready(BaseModel):
    use_cases: dict[str, Readiness]
    stale: list[str] = Field(
        description="Use cases whose model answers although the registry could not confirm that it is in Production."
    )


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Greeting(BaseModel):
    message: str
    docs: str = Field(description="Where to read on.")
