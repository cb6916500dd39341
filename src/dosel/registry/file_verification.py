"""Verifies a version's files against the manifest in the ledger and their signature, before a model is read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from dosel.certificates import Trusted
from dosel.errors import DeclarationChanged, UntrustedModel
from dosel.model import bundle, signature, tags
from dosel.model.fingerprint import declaration, declaration_changes
from dosel.registry.ledger import PromotionLedger
from dosel.registry.manifests import Manifest
from dosel.registry.mlflow_calls import CheckFiles
from dosel.registry.store import ModelVersion, Store
from dosel.registry.verdicts import Verdict
from dosel.signing import Keys
from dosel.usecases import ALL, UseCase


def admit(store: Store, ledger: PromotionLedger, version: ModelVersion) -> Manifest:
    """Give a new version the manifest that its training process recorded, if the files in the artifact store match it.

    Raises:
        UntrustedModel: the files differ, or no training process recorded a manifest; the ledger has a note.
    """
    manifest = ledger.manifest(version.name, version.version, version.run_id)
    if manifest is None:
        trained = ledger.attested(version.name, version.run_id)
        if reason := _refusal(store, ledger.keys, version, trained):
            text = f"{version.name} version {version.version} is refused at registration: {reason}"
            ledger.add_verdict(version.name, version.version, version.run_id, Verdict(False, reason))
            ledger.note(version.name, text)
            raise UntrustedModel(f"{text}. Train again; the next training does not use these files")
        assert trained is not None
        manifest = ledger.record_manifest(replace(trained, version=version.version))
    # For readers of MLflow only: dosel trusts the ledger.
    store.tag(version, {tags.MANIFEST: manifest.digest})
    return manifest


def vouch(store: Store, ledger: PromotionLedger, version: ModelVersion) -> Manifest:
    """Record and sign the manifest of a version's files as they are now; a manifest that is recorded already stays.

    Raises:
        SettingsError: this process has no signing key.
    """
    manifest = ledger.manifest(version.name, version.version, version.run_id)
    if manifest is None:
        with store.files(version) as folder:
            files = bundle.hash_files(folder)
        signed = signature.signed(ledger.keys, version.name, files).decode()
        made = Manifest(version.name, version.version, version.run_id, files, signature=signed)
        manifest = ledger.record_manifest(made)
        sign(store, ledger, version)
    store.tag(version, {tags.MANIFEST: manifest.digest})
    return manifest


def sign(store: Store, ledger: PromotionLedger, version: ModelVersion) -> bool:
    """Sign a version's files if they match its manifest and no trusted key has signed them; return whether it did.

    Raises:
        SettingsError: this process has no signing key.
        UntrustedModel: the version has no manifest, or its files differ from it.
    """
    manifest = _manifest(ledger, version)
    with store.files(version, _check_of(manifest)) as folder:
        _check_files(folder, manifest)
        try:
            signature.check_folder(folder, Trusted.of(ledger.keys), manifest.model, manifest.files)
        except UntrustedModel:
            signed = signature.signed(ledger.keys, manifest.model, manifest.files)
            store.add_file(version, bundle.SIGNATURE_FILE, signed)
            return True
    return False


@contextmanager
def trusted_files(store: Store, ledger: PromotionLedger, version: ModelVersion) -> Iterator[Path]:
    """A copy of a version's files, verified against its manifest and its signature.

    Raises:
        UntrustedModel: the version has no manifest, its files differ from it, or no trusted key signed them.
    """
    manifest = _manifest(ledger, version)
    with store.files(version, _check_of(manifest)) as folder:
        _check_files(folder, manifest)
        check_signature(folder, ledger.keys, manifest)
        yield folder


def check_signature(folder: Path, keys: Keys, manifest: Manifest) -> None:
    """Check that a trusted key signed the files of a folder, which match the manifest.

    Raises:
        UntrustedModel: none did.
    """
    try:
        signature.check_folder(folder, Trusted.of(keys), manifest.model, manifest.files)
    except UntrustedModel as error:
        raise UntrustedModel(f"{manifest.model} version {manifest.version}: {error}") from error


def _manifest(ledger: PromotionLedger, version: ModelVersion) -> Manifest:
    manifest = ledger.manifest(version.name, version.version, version.run_id)
    if manifest is None:
        raise UntrustedModel(
            f"{version.name} version {version.version} has no manifest in the ledger that a trusted key signed: dosel "
            "did not register it, or an older dosel did (`dosel sign`). If its files are right, `dosel vouch "
            f"{version.name} {version.version} --reason …` records one"
        )
    return manifest


def _check_files(folder: Path, manifest: Manifest) -> None:
    _check_same(manifest, bundle.differences(manifest.files, bundle.hash_files(folder)))


def _check_of(manifest: Manifest) -> CheckFiles:
    """The check, before any file is fetched, that there are only the manifest's files, with their recorded sizes."""
    sizes = manifest.facts.sizes if manifest.facts else {}

    def check(found: Mapping[str, int | None]) -> None:
        expected = {path: str(size) for path, size in sizes.items() if found.get(path) is not None}
        others = found.keys() - manifest.files.keys()
        if (found.get(bundle.SIGNATURE_FILE) or 0) <= signature.MOST_BYTES:
            others -= {bundle.SIGNATURE_FILE}
        wanted = {path: str(found[path]) for path in found.keys() & expected.keys() | others}
        _check_same(manifest, bundle.differences(expected, wanted))

    return check


def _check_same(manifest: Manifest, difference: str) -> None:
    if difference:
        raise UntrustedModel(
            f"{manifest.model} version {manifest.version}: its files are not those that were registered: {difference}"
        )


def check_declaration(use_case: UseCase, manifest: Manifest) -> None:
    """Check that the columns mean what they meant when a version was trained.

    A manifest without facts has no declaration, and passes.

    Raises:
        DeclarationChanged: the meaning differs; the message says what changed.
    """
    if manifest.facts is None:
        return
    if changes := declaration_changes(manifest.facts.declaration, declaration(use_case)):
        raise DeclarationChanged(
            f"{manifest.model} version {manifest.version} was trained for another declaration of {use_case.name}: "
            f"{changes}. Train a new version (the DAG {use_case.name}_train, or `dosel train {use_case.name}`), or "
            "restore the declaration"
        )


def check_promotable(store: Store, ledger: PromotionLedger, version: ModelVersion) -> None:
    """Check that the API could load a version: its files, and the meaning of its columns.

    Raises:
        UntrustedModel: its files are not those that were registered.
        DeclarationChanged: it was trained for columns of another meaning.
    """
    with trusted_files(store, ledger, version):
        pass
    manifest = ledger.manifest(version.name, version.version, version.run_id)
    use_case = next((use_case for use_case in ALL if use_case.model_name == version.name), None)
    if use_case is not None and manifest is not None:
        check_declaration(use_case, manifest)


def _refusal(store: Store, keys: Keys, version: ModelVersion, trained: Manifest | None) -> str:
    """Why the files in the artifact store are not what a training process wrote; empty if they are."""
    # It imports scikit-learn, which checks of a version that is registered do without.
    from dosel.model.digest import digest

    if trained is None or trained.facts is None:
        return f"no training process recorded the files of run {version.run_id or 'without an id'}"
    try:
        with store.files(version, _check_of(replace(trained, version=version.version))) as folder:
            difference = bundle.differences(trained.files, bundle.hash_files(folder))
            if difference:
                return f"the artifact store does not hold the files that the training wrote: {difference}"
            signature.check_folder(folder, Trusted.of(keys), version.name, trained.files)
            found = digest(bundle.read_estimator(folder))
    except UntrustedModel as error:
        return str(error)
    known = trained.facts.tags.get(tags.MODEL_DIGEST)
    return "" if found == known else f"the model's digest is {found}, and the training recorded {known}"
