"""The data API's settings: environment variables, read when an app is made and never at import."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from external.drift import Drift, parse

Coding = Literal["uci", "course"]

# What each coding calls the first class, Spruce/Fir.
FIRST_CLASS: dict[Coding, int] = {"uci": 1, "course": 0}


class StartError(Exception):
    """The data API cannot start; the message is one line that names the setting or the file."""


class Settings(BaseSettings):
    """One field for each environment variable of the same name in capitals; an empty variable counts as unset."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, use_attribute_docstrings=True)

    data_api_csv: Path | None = None
    """Rows to serve: a CSV of the 13 columns (or UCI's 55)."""
    data_api_csv_classes: Coding = "uci"
    """How that CSV codes Cover_Type: uci is 1-7, course is 0-6."""
    data_api_classes: Coding = "uci"
    """How Cover_Type is served: uci is 1-7, course is 0-6."""
    data_api_fetch: Literal["auto", "never"] = "auto"
    """Whether to try `fetch_covtype` when no CSV is named."""
    data_api_fetch_timeout: float = Field(60.0, gt=0, allow_inf_nan=False)
    """Seconds the whole download may take."""
    data_api_rows: int = Field(116_203, ge=10, le=5_000_000)
    """Rows to generate when there is nothing else to serve."""
    data_api_seed: int = Field(0, ge=0)
    """Seed of the generated rows and of the samples."""
    data_api_state_dir: Path = Path(".dosel/data-api")
    """Folder of timestamps.json, the epochs and the cached download."""
    min_update_time: float = Field(300.0, ge=0, allow_inf_nan=False)
    """Seconds a batch lasts; 0 makes each call the next batch."""
    batch_fraction: float = Field(0.1, gt=0, le=1, allow_inf_nan=False)
    """Share of its slice a batch holds."""
    slice_by: Literal["batch", "group"] = "batch"
    """What picks the tenth of the data a batch is drawn from."""
    data_api_drift: str = ""
    """Batches that go bad on purpose, such as batch=6,kind=concept,size=0.3; empty means none."""

    @field_validator("data_api_drift")
    @classmethod
    def _is_drift(cls, text: str) -> str:
        parse(text)
        return text

    @property
    def drift(self) -> Drift | None:
        return parse(self.data_api_drift)


def read_settings() -> Settings:
    """The settings of this process's environment.

    Raises:
        StartError: a variable has an invalid value; the message names each.
    """
    try:
        return Settings()
    except ValidationError as error:
        wrong = (f"{str(part['loc'][0]).upper()}={part['input']!r}: {part['msg']}" for part in error.errors())
        raise StartError("; ".join(wrong)) from None
