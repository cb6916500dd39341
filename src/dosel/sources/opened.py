"""Opens a use case's source with one installation's settings."""

from pathlib import Path

from dosel.settings import Settings
from dosel.sources.base import Source
from dosel.sources.data_api import DataApi
from dosel.sources.lake import open_lake
from dosel.sources.lake_table import lake_table
from dosel.sources.table import file_table, generated_table, package_table
from dosel.usecases import DataApiRows, FileRows, GeneratedRows, LakeRows, PackageRows, UseCase


def source_of(use_case: UseCase, settings: Settings) -> Source:
    """The source of a use case's rows. A file in `DOSEL_FILES` replaces every declared source except the lake."""
    named = settings.file_of(use_case.name)
    match use_case.rows:
        case LakeRows() as declared:
            return lake_table(use_case, declared, open_lake(settings), named)
        case _ if named is not None:
            return file_table(use_case, named)
        case PackageRows() as declared:
            return package_table(use_case, declared)
        case FileRows() as declared:
            return file_table(use_case, Path(declared.path), declared.encoding)
        case GeneratedRows() as declared:
            return generated_table(use_case, declared)
        case DataApiRows():
            s, width = settings, len(use_case.columns)
            return DataApi(s.data_api_url, s.data_api_group, s.data_api_classes, s.source_timeout, width)
