"""Where rows come from. What opens them with an installation's settings is imported from `dosel.sources.opened`."""

from dosel.sources.base import Batch, Source
from dosel.sources.data_api import DataApi
from dosel.sources.text import SURPLUS, as_text

__all__ = ["SURPLUS", "Batch", "DataApi", "Source", "as_text"]
