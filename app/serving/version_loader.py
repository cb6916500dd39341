"""Loads versions: from the cache on this machine's disk, or from MLflow into the cache."""

import hashlib
import json
import logging
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from app.serving.loaded_model import LoadedModel
from dosel.credentials import cache_key
from dosel.errors import DeclarationChanged, DoselError, NotExplainable, UntrustedModel
from dosel.settings import Settings
from dosel.signing import Keys
from dosel.usecases import UseCase

if TYPE_CHECKING:
    # Importing these takes seconds, in which the app can already answer /healthz.
    from dosel.model.cache import ModelCache
    from dosel.registry.manifests import Manifest
    from dosel.registry.registry import Registry
    from dosel.registry.store import ModelVersion

WARM_UP_ROWS = 50
"""Rows that a model predicts before its first request, since the first predictions are slower."""

log = logging.getLogger("uvicorn.error")


def registry_folder(settings: Settings) -> Path:
    """The folder of the cache. Each registry has its own: version 3 of one is not version 3 of another."""
    return settings.home / "serving" / hashlib.sha256(settings.tracking_uri.encode()).hexdigest()[:12]


class VersionLoader:
    """Makes loaded, warm models. `slot` names what the cache keeps: a model, or one of its families."""

    def __init__(self, settings: Settings) -> None:
        self._folder = registry_folder(settings)
        self._settings = settings
        self._keys = Keys(settings)

    def load(self, registry: "Registry", use_case: UseCase, slot: str, number: int) -> LoadedModel:
        """A version, verified against the ledger's manifest.

        Raises:
            UntrustedModel: its files are not those that were registered, or no trusted key signed them.
            DeclarationChanged: it was trained for columns of another meaning.
            RegistryError: MLflow cannot be reached, or has no such version.
        """
        from dosel.model import bundle

        version = registry.version(use_case.model_name, number)
        manifest = registry.manifest(version)
        if manifest is not None and (kept := self._from_cache(use_case, slot, manifest, version)) is not None:
            self._cache.sign(slot, number, _record(version, manifest))
            return kept
        with registry.files(version) as folder:
            # `files` raises if there is no manifest.
            assert manifest is not None
            cached = self._cache.add(slot, number, folder, _record(version, manifest))
            # Without a copy in the cache the training rows stay in memory: this folder is gone after the block.
            content = None if cached else bundle.read_reference(folder, manifest.files)
            read_reference = self._reference_reader(slot, manifest) if cached else lambda: content
            return _loaded(use_case, folder, version, manifest, read_reference)

    def last_known(self, use_case: UseCase, slot: str) -> LoadedModel | None:
        """The version that this machine last saw in Production, without asking the registry; None if not in the cache.

        The files are verified against the manifest as it was when they were cached, which the cache has signed.

        Raises:
            DeclarationChanged: it was trained for columns of another meaning.
        """
        number = self._cache.last(slot)
        record = self._cache.record(slot, number) if number is not None else None
        if record is None:
            return None
        version, manifest = _parse(record)
        return self._from_cache(use_case, slot, manifest, version)

    def last_entry(self, use_case: UseCase, slot: str) -> int:
        """The last entry of the ledger that this machine followed, or a later one that the pipeline has signed; 0 if
        none is known."""
        from dosel.registry.newest_entries import newest_entry

        return max(self._cache.last_entry(slot), newest_entry(self._settings, use_case.model_name))

    def entry_files(self) -> str:
        """Where `last_entry` reads."""
        from dosel.registry.newest_entries import file_of

        return f"{self._settings.home / 'serving'} and {file_of(self._settings)}"

    def set_last(self, slot: str, number: int, entry: int = 0) -> None:
        """Remember which version is in Production, and by which entry of the ledger, for the next start."""
        self._cache.set_last(slot, number, entry)

    def _from_cache(
        self, use_case: UseCase, slot: str, manifest: "Manifest", version: "ModelVersion"
    ) -> LoadedModel | None:
        from dosel.registry.file_verification import check_signature

        folder = self._cache.files(slot, manifest.version, manifest.files)
        if folder is None:
            return None
        try:
            check_signature(folder, self._keys, manifest)
            return _loaded(use_case, folder, version, manifest, self._reference_reader(slot, manifest))
        except DeclarationChanged:
            raise
        except UntrustedModel as error:
            log.warning("the copy in the cache is not used: %s", error)
            return None

    def _reference_reader(self, slot: str, manifest: "Manifest") -> Callable[[], bytes | None]:
        return partial(_cached_reference, self._cache, slot, manifest)

    @cached_property
    def _cache(self) -> "ModelCache":
        from dosel.model.cache import ModelCache

        try:
            key = cache_key(self._settings.home, self._settings.cache_key)
        except OSError as error:
            # On a full disk, say. Models answer from memory; the next start does not know this key.
            log.warning("the key of the cache cannot be written (%s): the next start fetches all versions again", error)
            key = secrets.token_bytes()
        return ModelCache(self._folder, key)


def _loaded(
    use_case: UseCase,
    folder: Path,
    version: "ModelVersion",
    manifest: "Manifest",
    read_reference: Callable[[], bytes | None],
) -> LoadedModel:
    from dosel.model import bundle, tags
    from dosel.model.predictor import Predictor
    from dosel.registry.file_verification import check_declaration

    check_declaration(use_case, manifest)
    if manifest.facts is None:
        log.info("%s version %d has no declaration: an older dosel registered it", version.name, version.version)
    backend = bundle.read_backend(folder, manifest.files)
    reason = backend.fallback_reason
    # By the ledger's verdict: `Registry.version` leaves MLflow's own tags of the gate out.
    if version.tags.get(tags.BACKEND) == "scikit-learn":
        # The gate's parity check, on all held-out rows, found a difference that the first check had missed.
        reason = version.tags.get(tags.BACKEND_REASON, "") or reason
    digest = manifest.files.get(bundle.ESTIMATOR_FILE)
    if backend.encoder is not None and backend.onnx is not None and digest is not None and not reason:
        # Only near ties and explanations need the estimator, and scikit-learn.
        estimator = bundle.EstimatorFile(folder, digest)
        predictor = Predictor.stored(use_case, backend.encoder, backend.onnx, estimator.read)
    else:
        predictor = Predictor(use_case, bundle.read_estimator(folder, manifest.files), backend.onnx, reason)
    for _ in range(WARM_UP_ROWS):
        predictor.predict([use_case.example])
    return LoadedModel(predictor, version, datetime.now(UTC), manifest.digest, read_reference)


def _cached_reference(cache: "ModelCache", slot: str, manifest: "Manifest") -> bytes | None:
    """
    Raises:
        NotExplainable: the cached files are damaged, or no longer there.
    """
    from dosel.model.bundle import read_reference

    folder = cache.files(slot, manifest.version, manifest.files)
    if folder is None:
        raise NotExplainable(
            f"the training rows of {manifest.model} version {manifest.version}, which an explanation needs, are "
            "damaged or gone from this machine's disk; restart the API to fetch them again"
        )
    return read_reference(folder, manifest.files)


def _record(version: "ModelVersion", manifest: "Manifest") -> bytes:
    facts = manifest.facts.document() if manifest.facts else None
    # By the standard library, since a metric of MLflow can be NaN.
    return json.dumps({"version": msgspec.to_builtins(version), "files": dict(manifest.files), "facts": facts}).encode()


def _parse(record: bytes) -> "tuple[ModelVersion, Manifest]":
    from dosel.model.facts import Facts
    from dosel.registry.manifests import Manifest
    from dosel.registry.store import ModelVersion

    try:
        known = json.loads(record)
        version = msgspec.convert(known["version"], ModelVersion)
        files = msgspec.convert(known["files"], dict[str, str])
        facts = Facts(**known["facts"]) if known["facts"] else None
    except (ValueError, msgspec.ValidationError, KeyError, TypeError) as error:
        raise DoselError(f"the record of a cached version cannot be read: {error}") from error
    return version, Manifest(version.name, version.version, version.run_id, files, facts)
