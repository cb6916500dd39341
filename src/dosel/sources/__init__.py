"""The sources of rows. `dosel.sources.opened` opens the declared source with an installation's settings."""

from dosel.rows.text import as_text
from dosel.sources.base import Batch, Source
from dosel.sources.data_api import DataApi
from dosel.usecases import SURPLUS

__all__ = ["SURPLUS", "Batch", "DataApi", "Source", "as_text"]
