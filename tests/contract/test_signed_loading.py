"""The API loads a version only with a trusted key's signature, from MLflow and from its cache."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.serving.version_loader import VersionLoader
from dosel.errors import UntrustedKey, UntrustedModel
from dosel.registry.registry import Registry
from dosel.settings import Settings
from dosel.signing import signing_key
from dosel.usecases.covertype import COVERTYPE
from tests.contract.conftest import Installation

SLOT = COVERTYPE.name


@pytest.fixture
def here(install: Callable[..., Installation]) -> Installation:
    """An installation whose API has version 1, in Production, in its cache, beside version 2."""
    here = install(in_production=True)
    here.registry.register(COVERTYPE, here.good[1])
    loader = VersionLoader(here.settings)
    for number in (2, 1):
        loader.load(here.registry, COVERTYPE, SLOT, number)
    loader.set_last(SLOT, 1)
    return here


def cached(here: Installation, number: int) -> Path:
    [folder] = (here.settings.home / "serving").glob(f"*/{SLOT}/{number}/files")
    return folder


def last_known(settings: Settings) -> object:
    """What an API that starts while MLflow and the data store are down loads."""
    return VersionLoader(settings).last_known(COVERTYPE, SLOT)


def test_a_signed_version_is_loaded_from_the_cache(here: Installation) -> None:
    assert last_known(here.settings) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda mine, other: (mine / "model.sig").unlink(),
        lambda mine, other: (mine / "model.sig").write_text("{}"),
        lambda mine, other: shutil.copy(other / "model.sig", mine),
    ],
    ids=["removed", "emptied", "that of another version"],
)
def test_a_cached_version_with_another_signature_is_fetched_again(
    here: Installation, change: Callable[[Path, Path], object]
) -> None:
    change(cached(here, 1), cached(here, 2))
    assert last_known(here.settings) is None
    VersionLoader(here.settings).load(here.registry, COVERTYPE, SLOT, 1)
    assert last_known(here.settings) is not None


def test_a_version_of_a_revoked_key_is_loaded_neither_from_the_cache_nor_from_mlflow(
    here: Installation, tmp_path: Path
) -> None:
    new = signing_key(Settings(signing_key=str(tmp_path / "new.pem")))
    assert new is not None
    (tmp_path / "trusted.pem").write_bytes(b"".join(key.pem() for key in new.both.values()))
    settings = here.settings.model_copy(update={"trusted_keys": str(tmp_path / "trusted.pem")})
    assert last_known(settings) is None
    with pytest.raises(UntrustedModel, match="no manifest in the ledger that a trusted key signed"):
        VersionLoader(settings).load(Registry.opened(settings), COVERTYPE, SLOT, 1)
    # Somebody signs the ledger's entries with the new key, and not the files.
    registry = Registry.opened(settings.model_copy(update={"signing_key": str(tmp_path / "new.pem")}))
    registry.ledger.sign_older(every=True)
    with pytest.raises(UntrustedModel, match=r"signed by the key .* which is not trusted") as refused:
        VersionLoader(settings).load(registry, COVERTYPE, SLOT, 1)
    assert isinstance(refused.value.__cause__, UntrustedKey)


def test_an_api_without_a_signing_key_loads_with_the_public_keys(here: Installation, tmp_path: Path) -> None:
    own = signing_key(Settings())
    assert own is not None
    (tmp_path / "trusted.pem").write_bytes(b"".join(key.pem() for key in own.both.values()))
    keys = {"signing_key": "none", "trusted_keys": str(tmp_path / "trusted.pem")}
    settings = here.settings.model_copy(update=keys)
    assert last_known(settings) is not None
    VersionLoader(settings).load(Registry.opened(settings), COVERTYPE, SLOT, 2)
