"""What the environment asks of the data API, read when an app is made and never at import."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

Coding = Literal["uci", "course"]

# What each coding calls the first class, Spruce/Fir.
FIRST_CLASS: dict[Coding, int] = {"uci": 1, "course": 0}


class StartError(Exception):
    """The data API cannot start; the message is one line that names the setting or the file."""


class Settings(BaseSettings):
    """One field for each environment variable of the same name in capitals; an empty variable counts as unset."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    data_api_csv: Annotated[Path | None, Field(description="Rows to serve: a CSV of the 13 columns (or UCI's 55).")] = (
        None
    )
    data_api_csv_classes: Annotated[
        Coding, Field(description="How that CSV codes Cover_Type: uci is 1-7, course is 0-6.")
    ] = "uci"
    data_api_classes: Annotated[Coding, Field(description="How Cover_Type is served: uci is 1-7, course is 0-6.")] = (
        "uci"
    )
    data_api_fetch: Annotated[
        Literal["auto", "never"], Field(description="Whether to try `fetch_covtype` when no CSV is named.")
    ] = "auto"
    data_api_fetch_timeout: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="Seconds the whole download may take.")
    ] = 60.0
    data_api_rows: Annotated[
        int, Field(ge=10, le=5_000_000, description="Rows to generate when there is nothing else to serve.")
    ] = 116_203
    data_api_seed: Annotated[int, Field(ge=0, description="Seed of the generated rows and of the samples.")] = 0
    data_api_state_dir: Annotated[
        Path, Field(description="Folder of timestamps.json, the epochs and the cached download.")
    ] = Path(".dosel/data-api")
    min_update_time: Annotated[
        float,
        Field(ge=0, allow_inf_nan=False, description="Seconds a batch lasts; 0 makes each call the next batch."),
    ] = 300.0
    batch_fraction: Annotated[
        float, Field(gt=0, le=1, allow_inf_nan=False, description="Share of its slice a batch holds.")
    ] = 0.1
    slice_by: Annotated[
        Literal["batch", "group"], Field(description="What picks the tenth of the data a batch is drawn from.")
    ] = "batch"


def read_settings() -> Settings:
    """The settings of this process's environment.

    Raises:
        StartError: a variable does not hold what it must.
    """
    try:
        return Settings()
    except ValidationError as error:
        wrong = (f"{str(part['loc'][0]).upper()}={part['input']!r}: {part['msg']}" for part in error.errors())
        raise StartError("; ".join(wrong)) from None
