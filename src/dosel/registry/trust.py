"""Which files a version may be loaded from: those whose manifest the ledger has kept since registration."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dosel.errors import UntrustedModel
from dosel.model import bundle, tags
from dosel.registry.ledger import PromotionLedger
from dosel.registry.manifests import Manifest
from dosel.registry.store import ModelVersion, Store


def record_manifest(
    store: Store, ledger: PromotionLedger, version: ModelVersion, add_files: Callable[[Path], None] = lambda _: None
) -> Manifest:
    """Record the manifest of a version's files as they are now; a manifest that is recorded already stays.

    Args:
        add_files: may add files to the copy that it is given and to the store, before they are hashed.
    """
    manifest = ledger.manifest(version.name, version.version, version.run_id)
    if manifest is None:
        with store.files(version) as folder:
            add_files(folder)
            files = bundle.hash_files(folder)
        manifest = ledger.record_manifest(Manifest(version.name, version.version, version.run_id, files))
    # For readers of MLflow only: dosel trusts the ledger.
    store.tag(version, {tags.MANIFEST: manifest.digest})
    return manifest


@contextmanager
def trusted_files(store: Store, ledger: PromotionLedger, version: ModelVersion) -> Iterator[Path]:
    """A copy of a version's files, verified against its manifest.

    Raises:
        UntrustedModel: the version has no manifest, or its files differ from it.
    """
    named = f"{version.name} version {version.version}"
    manifest = ledger.manifest(version.name, version.version, version.run_id)
    if manifest is None:
        raise UntrustedModel(
            f"{named} has no manifest in the ledger: dosel did not register it. If its files are right, "
            f"`dosel vouch {version.name} {version.version} --reason …` records one"
        )
    with store.files(version) as folder:
        if difference := bundle.differences(manifest.files, bundle.hash_files(folder)):
            raise UntrustedModel(f"{named}: its files are not those that were registered: {difference}")
        yield folder
