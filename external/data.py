"""Chooses the rows to serve: a CSV, the downloaded data set, or the generator, whichever is available first."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from external.download import CACHE, Download, DownloadError, cached, download
from external.generator import generate
from external.sampling import SLICES
from external.settings import Settings, StartError
from external.table import read_csv

logger = logging.getLogger("uvicorn.error")

Source = Literal["csv", "fetch_covtype", "generated"]


@dataclass(frozen=True)
class DataSet:
    """Coded rows (see `external.columns`) and their source."""

    source: Source
    rows: pd.DataFrame
    note: str = ""


def load(settings: Settings, fetch: Download = download) -> DataSet:
    """The rows to serve.

    Args:
        settings: names the CSV, allows the download, sizes the generator.
        fetch: writes the downloaded set to a path within some seconds, or raises `DownloadError`.

    Raises:
        StartError: the CSV named cannot be served. No other rows replace a file that the user named.
    """
    if settings.data_api_csv is not None:
        rows = read_csv(settings.data_api_csv, settings.data_api_csv_classes)
        if len(rows) < SLICES:
            raise StartError(
                f"DATA_API_CSV: {settings.data_api_csv} has {len(rows)} rows; {SLICES} batches need at least {SLICES}"
            )
        return DataSet("csv", rows, settings.data_api_csv.name)
    note = "DATA_API_FETCH=never"
    if settings.data_api_fetch == "auto":
        try:
            real = _real(settings.data_api_state_dir / CACHE, settings.data_api_fetch_timeout, fetch)
            return DataSet("fetch_covtype", real)
        except DownloadError as error:
            note = f"fetch_covtype: {error}"
            logger.warning("data API: %s; serving generated rows", note)
    return DataSet("generated", generate(settings.data_api_rows, settings.data_api_seed), note)


def _real(path: Path, seconds: float, fetch: Download) -> pd.DataFrame:
    rows = cached(path)
    if rows is None:
        path.unlink(missing_ok=True)
        fetch(path, seconds)
        rows = cached(path)
    if rows is None or len(rows) < SLICES:
        raise DownloadError("what was downloaded cannot be read")
    return rows
