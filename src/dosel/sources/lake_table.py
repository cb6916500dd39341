"""A CSV in the lake as one batch. The lake gets it at the first read, from a file or generated."""

import logging
from pathlib import Path

from dosel.errors import SourceError
from dosel.sources.lake import DATA, Lake
from dosel.sources.table import Table, as_csv
from dosel.usecases import LakeRows, UseCase

log = logging.getLogger(__name__)


def lake_table(use_case: UseCase, declared: LakeRows, lake: Lake, file: Path | None) -> Table:
    """The table at the declared key; if there is none, it is first copied from `file` or generated."""
    return Table(use_case, lake.address(DATA, declared.key), lambda: _read_or_create(declared, lake, file))


def _read_or_create(declared: LakeRows, lake: Lake, file: Path | None) -> bytes:
    content = lake.get(DATA, declared.key)
    if content is not None:
        return content
    address = lake.address(DATA, declared.key)
    if file is not None:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise SourceError(f"{file} (DOSEL_FILES) cannot be read: {error}") from error
        log.info("%s was copied from %s", address, file)
    else:
        content = as_csv(declared.otherwise.generate())
        log.warning(
            "%s does not exist and DOSEL_FILES names no file for it: %s", address, declared.otherwise.description
        )
    lake.put(DATA, declared.key, content)
    return content
