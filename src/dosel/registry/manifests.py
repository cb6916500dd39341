"""The digests of each version's files at registration. Manifests are added and never changed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from sqlalchemy import Connection, insert, select

from dosel.db.tables import MANIFESTS


@dataclass(frozen=True)
class Manifest:
    """SHA-256 of each of a version's files, by path within the model's folder.

    The run's id is part of its name: another MLflow may have another version of the same number.
    """

    model: str
    version: int
    run_id: str
    files: Mapping[str, str]
    at: datetime | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all of it: 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(dict(self.files), sort_keys=True).encode()).hexdigest()


def find(connection: Connection, model: str, version: int, run_id: str) -> Manifest | None:
    mine = (MANIFESTS.c.model == model) & (MANIFESTS.c.version == version) & (MANIFESTS.c.run_id == run_id)
    row = connection.execute(select(MANIFESTS).where(mine)).mappings().first()
    if row is None:
        return None
    manifest = Manifest(model, version, run_id, json.loads(row["files"]), row["at"].replace(tzinfo=UTC))
    return manifest if manifest.digest == row["digest"] else None


def add(connection: Connection, manifest: Manifest) -> None:
    values = {
        "model": manifest.model,
        "version": manifest.version,
        "run_id": manifest.run_id,
        "at": datetime.now(UTC).replace(tzinfo=None),
        "digest": manifest.digest,
        "files": json.dumps(dict(manifest.files), sort_keys=True),
    }
    connection.execute(insert(MANIFESTS).values(values))


def run_ids(connection: Connection) -> set[str]:
    """Every run that a manifest names."""
    return set(connection.scalars(select(MANIFESTS.c.run_id)))
