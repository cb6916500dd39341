"""The digests of each version's files, and what the training process knew of them. Manifests are added, never changed.

The training process records its manifest as version `TRAINED`, before it uploads anything. Registration copies the
manifest to the version's number, after it has compared the files in the artifact store.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, select

from dosel.db.tables import MANIFESTS
from dosel.model import tags
from dosel.model.facts import Facts
from dosel.registry import signed_entries
from dosel.settings import Settings
from dosel.signing import Keys

TRAINED = 0
"""The version of a manifest that is not registered yet."""


@dataclass(frozen=True)
class Manifest:
    """SHA-256 of each of a version's files, by path within the model's folder.

    The run's id is part of its name: another MLflow may have another version of the same number.

    Attributes:
        facts: what the training process recorded; None if none did: a person vouched, or an older dosel registered it.
        signature: of the files, as in `model.sig`; None if an older dosel recorded the manifest.
    """

    model: str
    version: int
    run_id: str
    files: Mapping[str, str]
    facts: Facts | None = None
    at: datetime | None = None
    signature: str | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the files' digests and the facts, declaration included: 64 hexadecimal digits."""
        files = dict(self.files)
        content: Any = files if self.facts is None else {"files": files, "facts": self.facts.document()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def family(self) -> str | None:
        return self.facts.tags.get(tags.FAMILY) if self.facts else None


def find(connection: Connection, model: str, version: int, run_id: str, keys: Keys) -> Manifest | None:
    mine = (MANIFESTS.c.model == model) & (MANIFESTS.c.version == version) & (MANIFESTS.c.run_id == run_id)
    return next(iter(_signed(connection, mine, keys)), None)


def registered(connection: Connection, model: str, keys: Keys) -> list[Manifest]:
    """All manifests of a model's versions, the last recorded one first."""
    return _signed(connection, (MANIFESTS.c.model == model) & (MANIFESTS.c.version != TRAINED), keys)


def of_family(connection: Connection, model: str, family: str, keys: Keys) -> list[tuple[int, str]]:
    """Versions and runs of a family, the last registered one first."""
    mine = (MANIFESTS.c.model == model) & (MANIFESTS.c.family == family) & (MANIFESTS.c.version != TRAINED)
    return [(manifest.version, manifest.run_id) for manifest in _signed(connection, mine, keys)]


def families(connection: Connection, model: str) -> set[str]:
    """Families of a model's versions."""
    mine = (MANIFESTS.c.model == model) & (MANIFESTS.c.version != TRAINED) & MANIFESTS.c.family.is_not(None)
    return set(connection.scalars(select(MANIFESTS.c.family).where(mine).distinct()))


def add(connection: Connection, manifest: Manifest, settings: Settings) -> None:
    """Add a signed manifest."""
    values = {
        "model": manifest.model,
        "version": manifest.version,
        "run_id": manifest.run_id,
        "at": datetime.now(UTC).replace(tzinfo=None),
        "digest": manifest.digest,
        "files": json.dumps(dict(manifest.files), sort_keys=True),
        "facts": json.dumps(manifest.facts.document(), sort_keys=True) if manifest.facts else None,
        "family": manifest.family,
        "signature": manifest.signature,
    }
    signed_entries.add(connection, MANIFESTS, values, settings)


def run_ids(connection: Connection) -> set[str]:
    """Every run that a version's manifest names."""
    return set(connection.scalars(select(MANIFESTS.c.run_id).where(MANIFESTS.c.version != TRAINED)))


def _signed(connection: Connection, mine: ColumnElement[bool], keys: Keys) -> list[Manifest]:
    """The manifests that a trusted key signed and that match their own digest, the last recorded one first."""
    rows = connection.execute(select(MANIFESTS).where(mine).order_by(MANIFESTS.c.id.desc())).mappings().all()
    return [manifest for row in signed_entries.proven(connection, MANIFESTS, rows, keys) if (manifest := _intact(row))]


def _intact(row: RowMapping) -> Manifest | None:
    """The manifest of a row; None if it does not match its own digest."""
    facts = Facts(**json.loads(row["facts"])) if row["facts"] else None
    at = row["at"].replace(tzinfo=UTC)
    files, signature = json.loads(row["files"]), row["signature"]
    manifest = Manifest(row["model"], row["version"], row["run_id"], files, facts, at, signature)
    return manifest if manifest.digest == row["digest"] else None
