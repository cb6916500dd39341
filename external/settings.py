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
    """How the CSV of `DATA_API_CSV` numbers the classes: uci is 1-7, course is 0-6."""
    data_api_classes: Coding = "uci"
    """How the data API numbers the classes in its answers: uci is 1-7, course is 0-6."""
    data_api_fetch: Literal["auto", "never"] = "auto"
    """Whether to download the real rows (those of `fetch_covtype`) when no CSV is named."""
    data_api_fetch_timeout: float = Field(60.0, gt=0, allow_inf_nan=False)
    """Time limit for the whole download, in seconds."""
    data_api_rows: int = Field(116_203, ge=10, le=5_000_000)
    """Number of rows to generate if there is no CSV and no download."""
    data_api_seed: int = Field(0, ge=0)
    """Seed of the generated rows and of the samples."""
    data_api_state_dir: Path = Path(".dosel/data-api")
    """Folder of timestamps.json, the epochs and the cached download."""
    min_update_time: float = Field(300.0, ge=0, allow_inf_nan=False)
    """Seconds for which calls return the same batch; 0 returns the next batch at each call."""
    batch_fraction: float = Field(0.1, gt=0, le=1, allow_inf_nan=False)
    """Share of its slice (a tenth of the data) that a batch contains."""
    slice_by: Literal["batch", "group"] = "batch"
    """Which number selects the slice that a batch is drawn from: the batch's or the group's."""
    data_api_drift: str = ""
    """Simulated drift from a batch on, such as batch=6,kind=concept,size=0.3; empty means none."""

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
