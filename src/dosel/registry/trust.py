"""Which files a version may be loaded from: those whose manifest the ledger has kept since registration."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dosel.errors import UntrustedModel
from dosel.registry.ledger import PromotionLedger
from dosel.registry.manifests import Manifest
from dosel.registry.store import ModelVersion, Store


def hashed(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def vouch(
    store: Store, ledger: PromotionLedger, version: ModelVersion, add: Callable[[Path], None] = lambda _: None
) -> Manifest:
    """Keeps the manifest of a version's files as they are now; one that is kept already stays.

    Args:
        add: may lay more files beside them, in the copy that it is given and in the store.
    """
    kept = ledger.manifest(version.name, version.version, version.run_id)
    if kept is None:
        with store.files(version) as folder:
            add(folder)
            kept = ledger.vouch(Manifest(version.name, version.version, version.run_id, hashed(folder)))
    # For readers of MLflow; nothing here believes them.
    store.tag(version, {"dosel.manifest": kept.digest})
    return kept


@contextmanager
def trusted_files(store: Store, ledger: PromotionLedger, version: ModelVersion) -> Iterator[Path]:
    """A copy of a version's files, which are what they were when it was registered.

    Raises:
        UntrustedModel: they are not, or nobody wrote down what they were.
    """
    named = f"{version.name} version {version.version}"
    manifest = ledger.manifest(version.name, version.version, version.run_id)
    if manifest is None:
        raise UntrustedModel(
            f"{named} has no manifest in the ledger: dosel did not register it. If its files are what they should "
            f"be, `dosel vouch {version.name} {version.version} --reason …` writes one"
        )
    with store.files(version) as folder:
        if difference := manifest.difference(hashed(folder)):
            raise UntrustedModel(f"{named}: its files are not those that were registered: {difference}")
        yield folder


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
