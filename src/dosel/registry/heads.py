"""Signed heads of the ledgers' hash chain, kept outside the database.

A head says: the chain's entry `sequence` had this hash. So it covers every entry up to it: anybody who changes,
removes or reorders one of them, or cuts the chain before it, needs the signing key, too.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, select

from dosel.db.chain import canonical
from dosel.db.engine import reading
from dosel.db.migrations import migrate
from dosel.db.tables import CHAIN
from dosel.errors import DoselError
from dosel.registry.newest_entries import write_newest_entries
from dosel.settings import Settings
from dosel.signing import PublicKey, SigningKey, signing_key
from dosel.sources.lake import HEADS, FolderLake, Lake, open_lake

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Head:
    """The chain's entry `sequence` had `hash` at a time; `key` is the fingerprint of the key that signed."""

    sequence: int
    hash: str
    at: str
    key: str
    signature: str = ""

    def message(self) -> bytes:
        """What is signed."""
        return b"dosel head of the ledgers 1\n" + canonical(
            {"sequence": self.sequence, "hash": self.hash, "at": self.at, "key": self.key}
        )

    def is_signed(self, keys: Mapping[str, PublicKey]) -> bool:
        """Whether one of these keys, by fingerprint, signed it."""
        key = keys.get(self.key)
        try:
            return key is not None and key.signed(self.message(), bytes.fromhex(self.signature))
        except ValueError:
            # Not hexadecimal.
            return False

    def document(self) -> dict[str, str | int]:
        return asdict(self)


class Heads:
    """Writes and reads heads, an object for each."""

    def __init__(self, lake: Lake, bucket: str) -> None:
        self._lake = lake
        self._bucket = bucket

    @classmethod
    def opened(cls, settings: Settings) -> "Heads":
        """The heads of the folder `DOSEL_HEADS`, or of the lake without one."""
        return cls.in_folder(Path(settings.heads)) if settings.heads else cls(open_lake(settings), HEADS)

    @classmethod
    def in_folder(cls, folder: Path) -> "Heads":
        folder = folder.expanduser().absolute()
        return cls(FolderLake(folder.parent), folder.name)

    def add(self, head: Head) -> None:
        """Keep a head.

        Raises:
            SourceError: it cannot be written.
        """
        name = f"{head.sequence:012d}-{head.key}.json"
        self._lake.put(self._bucket, name, json.dumps(head.document(), indent=1).encode())

    def all(self) -> list[Head]:
        """Every head that can be read, that of the lowest entry first.

        Raises:
            SourceError: they cannot be listed or read.
        """
        contents = (self._lake.get(self._bucket, name) for name in self._lake.keys(self._bucket))
        return [read_head(_parsed(content)) for content in contents if content]

    def last_sequence(self) -> int:
        """The entry of the last head; 0 without one."""
        return max((int(name.partition("-")[0]) for name in self._lake.keys(self._bucket)), default=0)


def read_head(document: object) -> Head:
    """A head from its JSON. What is missing or of another type makes a head that nobody signed."""
    known = document if isinstance(document, Mapping) else {}
    sequence = known.get("sequence")
    texts = (str(known.get(name, "")) for name in ("hash", "at", "key", "signature"))
    return Head(sequence if isinstance(sequence, int) else 0, *texts)


def _parsed(content: bytes) -> object:
    try:
        return json.loads(content)
    except ValueError:
        return None


def sign_head(engine: Engine, key: SigningKey) -> Head | None:
    """The chain's last entry, signed; None if there is none."""
    migrate(engine)
    with reading(engine) as connection:
        last = connection.execute(select(CHAIN).order_by(CHAIN.c.sequence.desc()).limit(1)).first()
    if last is None:
        return None
    head = Head(last.sequence, last.hash, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", key.public.fingerprint)
    return replace(head, signature=key.sign(head.message()).hex())


def publish(engine: Engine, settings: Settings) -> Head | None:
    """Sign and keep the newest head, and the newest entries; None if there is no new head, or no signing key here.

    Raises:
        SettingsError: the signing key cannot be used.
        SourceError: the head cannot be written.
        WarehouseError: the data store cannot be reached.
    """
    key = signing_key(settings)
    if key is None:
        # A process without a key has no access to the heads either.
        return None
    write_newest_entries(engine, settings, key)
    head, heads = sign_head(engine, key), Heads.opened(settings)
    if head is None or head.sequence <= heads.last_sequence():
        return None
    heads.add(head)
    return head


def publish_or_log(engine: Engine, settings: Settings) -> None:
    """As `publish`, after a promotion, which has happened whether or not the head can be written now."""
    try:
        publish(engine, settings)
    except DoselError as error:
        log.warning(
            "the head of the ledgers cannot be signed now; the DAG dosel_ledgers tries again within an hour: %s", error
        )
