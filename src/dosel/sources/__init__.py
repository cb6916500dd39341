"""The sources of rows. `dosel.sources.opened` opens the declared source with an installation's settings."""

from dosel.rows.text import SURPLUS, as_text
from dosel.sources.base import Batch, Source
from dosel.sources.data_api import DataApi

__all__ = ["SURPLUS", "Batch", "DataApi", "Source", "as_text"]
