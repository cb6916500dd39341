"""Where rows come from. What opens them with an installation's settings is imported from `dosel.sources.opened`."""

from dosel.rows.text import SURPLUS, as_text
from dosel.sources.base import Batch, Source
from dosel.sources.data_api import DataApi

__all__ = ["SURPLUS", "Batch", "DataApi", "Source", "as_text"]
