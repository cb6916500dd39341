"""Where rows come from."""

from dosel.sources.base import Batch, Source
from dosel.sources.data_api import DataApi

__all__ = ["Batch", "DataApi", "Source"]
