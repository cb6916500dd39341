"""The newest entry of each model's ledger, signed and kept outside the database.

An API that has followed a ledger remembers its last entry. An API with an empty disk reads the newest entry from this
file: otherwise the database's owner could remove the newest entries, and the API would answer with an earlier version.
"""

import json
import logging
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from sqlalchemy import Engine, select
from sqlalchemy.engine import URL, make_url

from dosel.credentials import NEWEST_ENTRIES
from dosel.db.chain import canonical
from dosel.db.engine import reading
from dosel.db.tables import PROMOTIONS
from dosel.files import replace_file
from dosel.registry.ledger import PromotionLedger
from dosel.settings import Settings
from dosel.signing import Keys, SigningKey

log = logging.getLogger(__name__)


def file_of(settings: Settings) -> Path:
    """The file for this data store: beside the trusted keys, which the API may only read, or in the home."""
    folder = Path(settings.trusted_keys).expanduser().parent if settings.trusted_keys else settings.home
    return folder / f"{NEWEST_ENTRIES}{sha256(_place(make_url(settings.warehouse_url)).encode()).hexdigest()[:8]}.json"


def newest_entry(settings: Settings, model: str) -> int:
    """The sequence of a model's newest entry, by the file; 0 without a file that a trusted key signed.

    Raises:
        SettingsError: the trusted keys cannot be read.
    """
    return _read(file_of(settings), Keys(settings)).get(model, 0)


def write_newest_entries(engine: Engine, settings: Settings, key: SigningKey) -> None:
    """Write the newest signed entry of each model; a file that cannot be written is logged.

    A sequence in the file never decreases, even if entries were removed from the ledger.

    Raises:
        WarehouseError: the data store cannot be reached.
    """
    keys, file = Keys(settings), file_of(settings)
    ledger, known = PromotionLedger(engine, keys), _read(file, keys)
    with reading(engine) as connection:
        models = connection.scalars(select(PROMOTIONS.c.model).distinct()).all()
    last = {model: entry.sequence for model in models if (entry := ledger.last(model))}
    entries = {**known, **{model: max(sequence, known.get(model, 0)) for model, sequence in last.items()}}
    if entries == known:
        return
    signature = key.sign(_message(entries, file)).hex()
    document = {"entries": entries, "key": key.public.fingerprint, "signature": signature}
    try:
        replace_file(file, json.dumps(document, indent=1), 0o644)
    except OSError as error:
        log.warning(
            "%s cannot be written (%s): an API with an empty disk does not know the newest entries", file, error
        )


def _read(file: Path, keys: Keys) -> Mapping[str, int]:
    try:
        document = json.loads(file.read_bytes())
        entries = {str(model): int(sequence) for model, sequence in document["entries"].items()}
        key = keys.trusted().get(document["key"])
        if key is not None and key.signed(_message(entries, file), bytes.fromhex(document["signature"])):
            return entries
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        log.warning("%s cannot be read (%s)", file, error)
        return {}
    log.warning("%s is not used: no trusted key signed it", file)
    return {}


def _message(entries: Mapping[str, int], file: Path) -> bytes:
    return b"dosel newest entries 1\n" + canonical({"entries": dict(entries), "data store": file.name})


def _place(url: URL) -> str:
    """Names the data store, whichever user and driver reach it."""
    if url.host is None:
        return str(Path(url.database or "").absolute())
    return f"{url.host}/{url.database}"
