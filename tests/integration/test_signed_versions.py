"""Versions are loaded only with a signature of the pipeline's key, whatever else an attacker can write to.

The attacker here owns MLflow, the artifact store and the database: manifests can be written, and the chain computed.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.artifacts import download_artifacts
from sqlalchemy import delete, text
from typer.testing import CliRunner

from dosel.cli import cli, common
from dosel.db import chain
from dosel.db.engine import connect, transaction
from dosel.db.tables import CHAIN, CHAIN_HEAD, ENTRY_SIGNATURES
from dosel.errors import UntrustedModel
from dosel.model import bundle, signature, tags
from dosel.registry.file_verification import admit
from dosel.registry.ledger_verification import read_ledgers, verify
from dosel.registry.manifests import TRAINED, Manifest
from dosel.registry.store import ModelVersion
from dosel.settings import Settings
from dosel.signing import Keys, signing_key
from tests.integration.worlds import World
from tests.ledgers import drop_triggers


def files_of(world: World, number: int, folder: Path) -> Path:
    """A copy of a version's files, of which the attacker makes another version; other tests share the originals."""
    uri = world.client.get_model_version_download_uri(world.name, str(number))
    return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder)))


def forge(world: World, folder: Path, family: str = "good") -> ModelVersion:
    """Register a folder as a version in MLflow, with a manifest in the database."""
    registry, run_id = world.pipeline().registry, world.runs[family]
    made = world.client.create_model_version(world.name, folder.as_uri(), run_id)
    registry.ledger.record_manifest(Manifest(world.name, int(made.version), run_id, bundle.hash_files(folder)))
    return registry.version(world.name, int(made.version))


def test_a_training_signs_its_files(world: World) -> None:
    registry = world.pipeline().registry
    version = registry.version(world.name, world.register("fair"))
    manifest = registry.manifest(version)
    assert manifest is not None
    with registry.files(version) as folder:
        assert (folder / "model.sig").read_text() == manifest.signature
    found = verify(read_ledgers(connect(world.settings.warehouse_url), ()), Keys().trusted())
    assert (found.problem, found.signed_versions, list(found.untrusted)) == ("", 1, [])


FORGERIES: Mapping[str, tuple[Callable[[Path, Path], object], str]] = {
    "another model": (lambda mine, other: shutil.copy(other / "model.skops", mine), r"model\.skops changed"),
    "a file more": (lambda mine, _: (mine / "serving" / "x").write_text(""), "serving/x not in the manifest"),
    "a file less": (lambda mine, _: (mine / "serving" / "form.json").unlink(), "form.json missing"),
    "no signature": (lambda mine, _: (mine / "model.sig").unlink(), "there is no signature"),
    "the signature of another version": (
        lambda mine, other: shutil.copy(other / "model.sig", mine),
        "not those that were signed",
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_version_with_a_forged_manifest_is_neither_loaded_nor_promoted(
    forgery: str, world: World, tmp_path: Path
) -> None:
    world.register("fair")
    world.register("good")
    mine, other = (files_of(world, number, tmp_path / str(number)) for number in (1, 2))
    change, message = FORGERIES[forgery]
    change(mine, other)
    version, registry = forge(world, mine), world.pipeline().registry
    for act in (registry.load, registry.check, lambda version: registry.promote(version, "me", "why")):
        with pytest.raises(UntrustedModel, match=message):
            act(version)
    assert not world.pipeline().challenge(version.version, "the DAG").promoted


def test_a_version_that_a_strangers_key_signed_is_refused(world: World, tmp_path: Path) -> None:
    world.register("fair")
    folder = files_of(world, 1, tmp_path)
    stranger = signing_key(Settings(signing_key=str(tmp_path / "stranger.pem")))
    assert stranger is not None
    (folder / "model.sig").write_bytes(signature.sign(stranger, world.name, bundle.hash_files(folder)))
    with pytest.raises(UntrustedModel, match=r"version 2: the files are signed by the key \w{16}, which is not"):
        world.pipeline().registry.load(forge(world, folder))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda text: text.replace("skops", "other"), "not those that were signed: MLmodel changed"),
        (lambda text: text + "more", "not those that were registered: MLmodel changed"),
    ],
    ids=["a file of the same size", "a file of another size"],
)
def test_a_training_forged_in_the_database_is_not_registered(
    world: World, tmp_path: Path, edit: Callable[[str], str], reason: str
) -> None:
    """The attacker's run names files with a matching manifest of a training, which the attacker could not sign."""
    world.register("fair")
    registry = world.pipeline().registry
    folder = files_of(world, 1, tmp_path)
    description = folder / "MLmodel"
    description.write_text(edit(description.read_text()))
    known = registry.ledger.attested(world.name, world.runs["fair"])
    assert known is not None
    version = forge(world, folder)
    trained = replace(known, run_id="f" * 32, version=TRAINED, files=bundle.hash_files(folder))
    registry.ledger.record_manifest(trained)
    with pytest.raises(UntrustedModel, match=rf"refused at registration.*{reason}"):
        admit(registry.store, registry.ledger, replace(version, run_id="f" * 32))


def test_edited_runs_and_tags_in_mlflow_change_nothing(world: World) -> None:
    number = world.register("fair")
    registry = world.pipeline().registry
    version = registry.version(world.name, number)
    world.client.set_model_version_tag(world.name, str(number), tags.MANIFEST, "0" * 64)
    world.client.set_tag(version.run_id, tags.MODEL_DIGEST, "0" * 64)
    world.client.set_tag(version.run_id, tags.FAMILY, "another")
    registry.load(registry.version(world.name, number))
    assert registry.version(world.name, number) == version


class TestOlderVersions:
    """Versions from before dosel signed, and those whose key was revoked."""

    @pytest.fixture
    def older(self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[World, ModelVersion, Path]:
        """A version with a manifest; neither its files nor the manifest has a signature."""
        world.register("fair")
        folder = files_of(world, 1, tmp_path / "copy")
        (folder / "model.sig").unlink()
        # Other tests share its files, which must not be signed again.
        world.client.delete_model_version(world.name, "1")
        # In a lake, other tests have their heads, too.
        own = {"signing_key": str(tmp_path / "key.pem"), "heads": str(tmp_path / "heads")}
        settings = world.settings.model_copy(update=own)
        monkeypatch.setattr(common, "load_settings", lambda: settings)
        world.settings = settings
        version = forge(world, folder)
        with transaction(connect(settings.warehouse_url)) as connection:
            drop_triggers(connection)
            for table in (ENTRY_SIGNATURES, CHAIN, CHAIN_HEAD):
                connection.execute(delete(table))
            chain.start(connection)
        return world, version, folder

    def run(self, *arguments: str, code: int = 0) -> str:
        result = CliRunner(env={"COLUMNS": "200"}).invoke(cli, arguments)
        assert result.exit_code == code, result.output
        return result.output

    def test_older_versions_are_refused_until_dosel_sign_has_signed_them(
        self, older: tuple[World, ModelVersion, Path]
    ) -> None:
        world, version, _ = older
        with pytest.raises(UntrustedModel, match="has no manifest in the ledger"):
            world.pipeline().registry.load(version)
        assert f"{world.name} version 2: signed" in self.run("sign", world.name)
        world.pipeline().registry.load(version)
        assert f"{world.name} version 2: was signed before" in self.run("sign", world.name)
        [note] = world.pipeline().registry.ledger.notes(world.name)
        assert "signed the files of version 2" in note.text

    def test_versions_with_changed_files_are_not_signed(self, older: tuple[World, ModelVersion, Path]) -> None:
        world, version, folder = older
        (folder / "MLmodel").write_text("another")
        assert "version 2: its files are not those that were registered: MLmodel changed" in self.run("sign")
        with pytest.raises(UntrustedModel):
            world.pipeline().registry.load(version)

    def test_versions_are_not_signed_while_the_ledgers_are_wrong(
        self, older: tuple[World, ModelVersion, Path], tmp_path: Path
    ) -> None:
        world, _, folder = older
        with connect(world.settings.warehouse_url).begin() as connection:
            drop_triggers(connection)
            connection.execute(text("UPDATE manifests SET digest = 'x' WHERE version = 2"))
        result = CliRunner().invoke(cli, ["sign"])
        assert "nothing is signed, since the ledgers are wrong" in str(result.exception)
        assert not (folder / "model.sig").exists()

    def test_versions_of_a_revoked_key_are_signed_again(
        self, older: tuple[World, ModelVersion, Path], tmp_path: Path
    ) -> None:
        world, version, _ = older
        self.run("sign")
        (tmp_path / "key.pem").rename(tmp_path / "stolen.pem")
        with pytest.raises(UntrustedModel, match="has no manifest"):
            world.pipeline().registry.load(version)
        shown = self.run("sign")
        assert f"manifests 5 of {world.name} (version 2): signed" in shown
        assert f"{world.name} version 2: signed" in shown
        world.pipeline().registry.load(version)
